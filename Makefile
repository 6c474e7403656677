# Two commands for newcomers: `make demo` and `make test`. Both do their own set-up.
SWIFT ?= swift

.PHONY: setup build demo test format lint

setup:
	@Scripts/setup

build: setup
	$(SWIFT) build -c release --product monet

demo: build
	@Scripts/demo

test: setup
	$(SWIFT) build -c release --build-tests
	$(SWIFT) test -c release --skip-build

format:
	$(SWIFT) format --in-place --recursive Sources Tests Package.swift Examples

lint:
	$(SWIFT) format lint --strict --recursive Sources Tests Package.swift Examples
