// The address after # says all that a view shows, so that it can be shared, reloaded and gone back to.

export function parse() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query ?? "") };
}

export function link(path, values) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(values ?? {})) {
        if (value !== undefined && value !== null && value !== "") query.set(key, value);
    }
    const text = query.toString();
    return "#/" + path + (text ? "?" + text : "");
}

export function go(path, values) {
    location.hash = link(path, values);
}

/// Changes the address without showing the view again.
export function note(path, values) {
    history.replaceState(null, "", link(path, values));
}
