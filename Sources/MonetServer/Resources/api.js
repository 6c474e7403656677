// The server, or the files that `monet explore` wrote: a page that was opened from a disk asks no server.
import { say } from "./dom.js";

const keyName = "monet-key";
export const isStatic = location.protocol === "file:" || "monetStatic" in window;

export class RequestError extends Error {
    constructor(message, status) {
        super(message);
        this.status = status;
    }
}

function headers(hasBody) {
    const result = {};
    if (hasBody) result["Content-Type"] = "application/json";
    const key = sessionStorage.getItem(keyName);
    if (key) result.Authorization = "Bearer " + key;
    return result;
}

async function send(path, body, signal) {
    const answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST", headers: headers(body !== undefined), signal,
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.status === 401) {
        const key = prompt("This server asks for a key:");
        if (key) {
            sessionStorage.setItem(keyName, key);
            return send(path, body, signal);
        }
    }
    if (!answer.ok) {
        let message = answer.status + " " + answer.statusText;
        try {
            message = (await answer.json()).error.message;
        } catch { /* The status says enough. */ }
        throw new RequestError(message, answer.status);
    }
    return answer;
}

export async function get(path, signal) {
    if (isStatic) return stored(path);
    return (await send(path, undefined, signal)).json();
}

export async function post(path, body, signal) {
    return (await send(path, body, signal)).json();
}

export async function postForBlob(path, body) {
    return (await send(path, body)).blob();
}

export async function getBlob(path) {
    return (await send(path)).blob();
}

export async function getText(path) {
    return (await send(path)).text();
}

/// Calls `each` with every event of a streamed answer.
export async function stream(path, body, each, signal) {
    const answer = await send(path, body, signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        rest += value;
        for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
            const line = rest.slice(0, end);
            rest = rest.slice(end + 2);
            if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
            const event = JSON.parse(line.slice(6));
            if (event.error) throw new RequestError(event.error.message, 500);
            each(event);
        }
    }
}

/// Runs something, and tells what went wrong with it.
export async function attempt(body) {
    try {
        return await body();
    } catch (error) {
        if (error.name !== "AbortError") say(error.message, true);
        return undefined;
    }
}

// Data files are scripts that fill this object: pages from a disk may not fetch.
const storedData = (window.monetData ??= {});

export async function stored(path) {
    if (!(path in storedData)) {
        await new Promise((resolve, reject) => {
            const script = document.createElement("script");
            script.src = "data-" + path.replaceAll("/", "-") + ".js";
            script.onload = resolve;
            script.onerror = () => reject(new RequestError("this copy does not contain " + path, 404));
            document.head.append(script);
        });
    }
    return storedData[path];
}
