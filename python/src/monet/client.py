"""A client of `monet serve`, with the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Sequence


class ServerError(RuntimeError):
    """An error that the server answered with."""

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(f"{status}: {message}")
        self.status, self.message, self.param = status, message, param


@dataclass(frozen=True)
class Completion:
    """A continuation."""

    text: str
    finish_reason: str | None
    usage: dict[str, Any]
    choice: dict[str, Any] = field(repr=False)
    """The whole choice, with `logprobs` and `monet`."""


class Client:
    """A server at an address such as `http://127.0.0.1:8080`."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 300):
        self.url, self.timeout = url.rstrip("/"), timeout
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def _open(self, path: str, body: Mapping[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            content = error.read().decode("utf-8", "replace")
            try:
                found = json.loads(content)["error"]
            except (ValueError, KeyError, TypeError):
                raise ServerError(error.code, content[:200]) from None
            raise ServerError(error.code, found.get("message", ""), found.get("param")) from None

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the server answers: GET without a body, POST with one."""
        with self._open(path, body) as answer:
            return json.load(answer)

    def models(self) -> list[str]:
        return [entry["id"] for entry in self.request("/v1/models")["data"]]

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return list(self.request("/tokenize", {"prompt": text, "add_special_tokens": special})["tokens"])

    @staticmethod
    def _body(
        prompt: str | Sequence[int], masks: Sequence[str], strengths: Mapping[str, float] | None,
        monet: Mapping[str, Any] | None, settings: Mapping[str, Any],
    ) -> dict[str, Any]:
        own = dict(monet or {})
        if masks:
            own["masks"] = list(masks)
        if strengths:
            own["strengths"] = dict(strengths)
        prompt = prompt if isinstance(prompt, str) else list(prompt)
        return {"prompt": prompt, **settings, **({"monet": own} if own else {})}

    def complete(
        self, prompt: str | Sequence[int], *, masks: Sequence[str] = (), strengths: Mapping[str, float] | None = None,
        monet: Mapping[str, Any] | None = None, **settings: Any,
    ) -> Completion:
        """Continues a prompt. `strengths` edits experts for this request alone: 0 removes, 2 doubles."""
        answer = self.request("/v1/completions", self._body(prompt, masks, strengths, monet, settings))
        choice = answer["choices"][0]
        return Completion(choice["text"], choice["finish_reason"], answer["usage"], choice)

    def stream(
        self, prompt: str | Sequence[int], *, masks: Sequence[str] = (), strengths: Mapping[str, float] | None = None,
        monet: Mapping[str, Any] | None = None, **settings: Any,
    ) -> Iterator[str]:
        """The pieces of a continuation as they are written. Closing the iterator stops the server's work."""
        body = self._body(prompt, masks, strengths, monet, {**settings, "stream": True})
        with self._open("/v1/completions", body) as answer:
            for line in answer:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise ServerError(500, event["error"].get("message", ""))
                for choice in event["choices"]:
                    if choice["text"]:
                        yield choice["text"]

    def experts(self, **query: Any) -> list[dict[str, Any]]:
        """Searches the server's index: label, token, text, tag, group, sort, order, limit, offset."""
        return list(self.request("/api/experts?" + urllib.parse.urlencode(query))["experts"])

    def expert(self, expert: str) -> dict[str, Any]:
        """An expert's dossier."""
        return dict(self.request(f"/api/experts/{expert}"))

    def fired(self, text: str, without: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The experts that a text fires, and another does not."""
        body: dict[str, Any] = {"text": text, "limit": limit}
        if without is not None:
            body["without"] = without
        return list(self.request("/api/experts/fired", body)["experts"])

    def graph(self, prompt: str, *, target: str | None = None, metric: str | None = None, **settings: Any) -> dict[str, Any]:
        """Why a token is predicted: the attribution graph, with the explained value. Settings are nodes, node_threshold and
        edge_threshold."""
        named = {"target": target, "metric": metric}
        body = {"prompt": prompt, **settings, **{key: value for key, value in named.items() if value is not None}}
        return dict(self.request("/api/graph", body))

    def intervene(self, prompt: str, source: str, target_node: str | None = None, **settings: Any) -> dict[str, Any]:
        """Removes a graph's node, or cuts the edge to another, in the true model: the predicted and the measured change.
        Settings are those of the graph."""
        body = {"prompt": prompt, "source": source, **settings}
        if target_node is not None:
            body["target_node"] = target_node
        return dict(self.request("/api/graph/test", body))
