// Every table and figure can be saved: CSV, JSON, SVG.
import { h } from "./dom.js";

function download(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = h("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function cell(value) {
    const text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would run a text that begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}

export function saveTable(name, columns, rows) {
    const lines = [columns.map(cell).join(","), ...rows.map((row) => row.map(cell).join(","))];
    return h("div", { class: "actions" },
        h("button", { type: "button", onclick: () => download(name + ".csv", "text/csv", lines.join("\r\n") + "\r\n") }, "Save CSV"),
        h("button", { type: "button", onclick: () => saveJSON(name, rows.map((row) => Object.fromEntries(columns.map((column, place) => [column, row[place]])))) }, "Save JSON"));
}

export function saveJSON(name, value) {
    download(name + ".json", "application/json", JSON.stringify(value, null, 2) + "\n");
}

export function saveFigure(name, figure) {
    return h("div", { class: "actions" }, h("button", {
        type: "button", onclick: () => {
            const copy = figure.cloneNode(true);
            copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
            const ink = getComputedStyle(document.body).getPropertyValue("--soft");
            const accent = getComputedStyle(document.body).getPropertyValue("--accent");
            for (const text of copy.querySelectorAll("text")) {
                text.setAttribute("fill", ink);
                text.setAttribute("font-family", "sans-serif");
                text.setAttribute("font-size", "11");
            }
            for (const bars of copy.querySelectorAll(".bars")) bars.setAttribute("fill", accent);
            download(name + ".svg", "image/svg+xml", new XMLSerializer().serializeToString(copy));
        }
    }, "Save SVG"));
}

export function saveBytes(name, blob) {
    const url = URL.createObjectURL(blob);
    const link = h("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}
