// The experts to edit, with a strength each: kept in this browser, and in the address of the views that use them.
const basketName = "monet-basket";
let basketEntries = new Map();
const basketListeners = new Set();

function read(text) {
    const result = new Map();
    for (const part of (text ?? "").split(",")) {
        const match = /^(\d+\/\d+)(?::([\d.]+))?$/.exec(part.trim());
        if (match) result.set(match[1], Math.min(1000, Number(match[2] ?? 0)));
    }
    return result;
}

export function basketText(entries = basketEntries) {
    return [...entries].map(([unit, strength]) => strength === 0 ? unit : unit + ":" + strength).join(",");
}

export function loadBasket(text) {
    basketEntries = read(text ?? localStorage.getItem(basketName));
    changed();
}

export function basket() {
    return basketEntries;
}

export function inBasket(unit) {
    return basketEntries.has(unit);
}

export function setStrength(unit, strength) {
    basketEntries.set(unit, strength);
    changed();
}

export function remove(unit) {
    basketEntries.delete(unit);
    changed();
}

export function replaceBasket(entries) {
    basketEntries = new Map(entries);
    changed();
}

export function onBasket(listener) {
    basketListeners.add(listener);
    return () => basketListeners.delete(listener);
}

function changed() {
    try {
        localStorage.setItem(basketName, basketText());
    } catch { /* Without storage, the basket lives as long as the page. */ }
    for (const listener of basketListeners) listener();
}
