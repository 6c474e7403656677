// Reports of other commands, found in a folder.
import { h, replace } from "./dom.js";
import { get, getText, getBlob, attempt } from "./api.js";
import { link } from "./address.js";

export async function resultsView(view, info, query) {
    if (!info.has_results) {
        replace(view, h("section", {}, h("h2", {}, "Results"), h("p", {}, "Start the server with ", h("code", {}, "--results DIR"), " to see matrices, toxicity and monosemanticity reports here.")));
        return;
    }
    const files = (await attempt(() => get("api/results")))?.files ?? [];
    const chosen = files.find((file) => file.name === query.get("file"));
    const shown = h("section", { hidden: !chosen });
    replace(view, h("section", {}, h("h2", {}, "Results"), files.length === 0 ? h("p", {}, "The folder has no reports.") : h("ul", { class: "plain" }, files.map((file) => h("li", {}, h("a", { href: link("results", { file: file.name }), "aria-current": file === chosen ? "true" : undefined }, file.name), h("span", { class: "soft" }, ` ${file.bytes.toLocaleString("en")} bytes`))))), shown);
    if (!chosen) return;
    const path = "api/results/file?name=" + encodeURIComponent(chosen.name);
    const title = h("h3", {}, chosen.name);
    if (chosen.type === "text/html" || chosen.type === "image/svg+xml") {
        // As a text into a frame without rights: a report may come from anyone.
        const text = await attempt(() => getText(path));
        if (text === undefined) return;
        const frame = h("iframe", { title: chosen.name, sandbox: "" });
        frame.srcdoc = text;
        replace(shown, title, frame);
    } else if (chosen.type === "image/png") {
        const blob = await attempt(() => getBlob(path));
        if (blob) replace(shown, title, h("img", { src: URL.createObjectURL(blob), alt: chosen.name }));
    } else {
        const text = await attempt(() => getText(path));
        if (text === undefined) return;
        let pretty = text;
        try {
            if (chosen.type === "application/json") pretty = JSON.stringify(JSON.parse(text), null, 2);
        } catch { /* Shown as it is. */ }
        replace(shown, title, h("pre", { class: "context", tabindex: 0 }, pretty.slice(0, 2000000)));
    }
}
