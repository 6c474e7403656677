// Elements from data. Texts become text nodes and attributes are set one by one: nothing from a model, a label or a
// file is ever read as markup.

export function h(name, attributes, ...children) {
    const element = document.createElement(name);
    fill(element, attributes, children);
    return element;
}

export function svg(name, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    fill(element, attributes, children);
    return element;
}

function fill(element, attributes, children) {
    for (const [key, value] of Object.entries(attributes ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
        else if (key.startsWith("--")) element.style.setProperty(key, value);
        else if (key === "value") element.value = value;
        else element.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
        if (child !== null && child !== undefined && child !== false) element.append(child);
    }
}

export function replace(element, ...children) {
    element.replaceChildren(...children.flat(Infinity).filter((child) => child));
}

let statusElement;
export function say(text, isError = false) {
    statusElement ??= document.getElementById("status");
    statusElement.textContent = text;
    statusElement.classList.toggle("error", isError);
}

export function field(label, control, more) {
    return h("label", more, label, control);
}

/// A number in few digits: 0.0123, 1.2e-05, 12.3%.
export function short(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e5) return value.toExponential(1);
    return value.toPrecision(3).replace(/\.?0+$/, "");
}

export function percent(value) {
    return value >= 0.1 || value === 0 ? (100 * value).toFixed(1) + "%" : (100 * value).toPrecision(2) + "%";
}

/// A token as it is shown: breaks and bytes have signs.
export function visible(token) {
    if (token.startsWith("bytes:\\x0a") || token === "<0x0A>" || token === "\n") return "⏎\n";
    const byte = /^(?:bytes:\\x|<0x)([0-9a-fA-F]{2})>?$/.exec(token);
    return byte ? "‹" + byte[1].toUpperCase() + "›" : token;
}
