# Two commands for newcomers: `make demo` and `make test`. Both do their own set-up.
SWIFT ?= swift
# Homebrew's folders are not among the compiler's own.
ifeq ($(shell uname),Darwin)
BREW := $(shell brew --prefix)
FLAGS := -Xcxx -I$(BREW)/include -Xlinker -L$(BREW)/lib
endif

.PHONY: setup build demo test test-python python-environment notebook fuzz docs check-neon check-avx512 format lint

setup:
	@Scripts/setup

build: setup
	$(SWIFT) build -c release --product monet $(FLAGS)

demo: build
	@Scripts/demo

test: setup
	$(SWIFT) build -c release --build-tests $(FLAGS)
	$(SWIFT) test -c release --skip-build $(FLAGS)

# The mutation tests of the suite with as many more inputs: FUZZ=20 takes about half an hour.
FUZZ ?= 20
fuzz: setup
	$(SWIFT) build -c release --build-tests $(FLAGS)
	MONET_FUZZ=$(FUZZ) $(SWIFT) test -c release --skip-build --filter Fuzz $(FLAGS)

docs: setup
	@Scripts/docs

check-neon:
	@Scripts/check-neon

check-avx512:
	@Scripts/check-avx512

format:
	$(SWIFT) format --in-place --recursive Sources Tests Package.swift Examples

lint:
	$(SWIFT) format lint --strict --recursive Sources Tests Package.swift Examples

# The Python package, against files that the command makes: after make build or make test.
python-environment:
	python3 -m venv .build/python
	.build/python/bin/pip install --quiet './python[test]'

test-python: python-environment
	MONET="$$($(SWIFT) build -c release --show-bin-path)/monet" .build/python/bin/pytest -q python

# The notebook from top to bottom, on the demo's model or on one that is trained in seconds.
notebook:
	MONET="$$($(SWIFT) build -c release --show-bin-path)/monet" Examples/notebook/run
