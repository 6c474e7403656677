// The explorer: which view an address stands for.
import { h, replace, say } from "./dom.js";
import { get, attempt, isStatic } from "./api.js";
import { parse, link } from "./address.js";
import { loadBasket, onBasket, basket } from "./basket.js";
import { writeView } from "./write.js";
import { graphView } from "./graph.js";
import { expertsView } from "./experts.js";
import { dossierView } from "./dossier.js";
import { editView } from "./edit.js";
import { resultsView } from "./results.js";

const viewTitles = isStatic ? [["experts", "Experts"]] : [["write", "Write"], ["graph", "Graph"], ["experts", "Experts"], ["edit", "Edit"], ["results", "Results"]];
let explorerInfo;

function showNavigation(current) {
    replace(document.querySelector("nav"), viewTitles.map(([path, title]) => h("a", { href: link(path), "aria-current": path === current ? "page" : undefined },
        title, path === "edit" && basket().size > 0 ? ` (${basket().size})` : "")));
}

async function show(isFirst) {
    const { parts, query } = parse();
    const name = viewTitles.some(([path]) => path === parts[0]) ? parts[0] : viewTitles[0][0];
    if (query.has("edit")) loadBasket(query.get("edit"));
    const view = document.getElementById("view");
    showNavigation(name);
    document.title = (parts.length > 2 ? "Expert " + parts.slice(1).join("/") : viewTitles.find(([path]) => path === name)[1]) + " – " + explorerInfo.model;
    if (name === "write") await writeView(view, explorerInfo, query);
    else if (name === "graph") graphView(view, explorerInfo, query);
    else if (name === "edit") await editView(view, explorerInfo);
    else if (name === "results") await resultsView(view, explorerInfo, query);
    else if (parts.length === 3) await dossierView(view, explorerInfo, parts[1] + "/" + parts[2]);
    else {
        // Tags may have been added since.
        explorerInfo = (await attempt(() => get("api/info"))) ?? explorerInfo;
        await expertsView(view, explorerInfo, query);
    }
    if (!isFirst) view.focus({ preventScroll: true });
}

async function start() {
    explorerInfo = await attempt(() => get("api/info"));
    if (!explorerInfo) {
        setTimeout(start, 2000);
        return;
    }
    say("");
    document.getElementById("model").textContent = explorerInfo.model;
    loadBasket(parse().query.get("edit"));
    onBasket(() => showNavigation(parse().parts[0] ?? viewTitles[0][0]));
    window.addEventListener("hashchange", () => show(false));
    await show(true);
}

start();
