// Search: by label, token, text, tag, or by what a text fires.
import { h, replace, say, short, percent, field } from "./dom.js";
import { get, post, attempt, isStatic } from "./api.js";
import { link, go, parse } from "./address.js";
import { inBasket, setStrength, remove } from "./basket.js";
import { saveTable } from "./save.js";

const pageSize = 50;

export function basketButton(unit) {
    const button = h("button", { type: "button" });
    const show = () => {
        button.textContent = inBasket(unit) ? "In the basket" : "Add";
        button.setAttribute("aria-pressed", inBasket(unit));
        button.setAttribute("aria-label", (inBasket(unit) ? "Take out of the basket: " : "Add to the basket: ") + unit);
    };
    button.addEventListener("click", () => {
        if (inBasket(unit)) remove(unit); else setStrength(unit, 0);
        show();
    });
    show();
    return button;
}

export function expertLink(unit) {
    return h("a", { class: "unit-name", href: link("experts/" + unit) }, unit);
}

/// An expert that fires on one label only has no ratio.
function ratioText(value) {
    return value >= 1e9 ? "only" : short(value);
}

export function expertTable(rows, valueName, sorting) {
    const column = (key, title, more) => {
        const sorted = sorting && sorting.key === key;
        return h("th", { ...more, "aria-sort": sorted ? (sorting.ascending ? "ascending" : "descending") : undefined, scope: "col" },
            sorting && sorting.keys.includes(key)
                ? h("button", { type: "button", onclick: () => sorting.choose(key, sorted ? !sorting.ascending : false) }, title, sorted ? (sorting.ascending ? " ↑" : " ↓") : "")
                : title);
    };
    return h("div", { class: "wide" }, h("table", {},
        h("caption", { class: "soft" }, rows.length === 1 ? "1 expert" : rows.length + " experts"),
        h("thead", {}, h("tr", {}, column("expert", "expert", { class: "text" }),
            valueName ? column(valueName.key, valueName.title) : null, column("mean", "mean", { class: "optional" }), column("frequency", "fires on"),
            column("max", "largest", { class: "optional" }), column("label", "strongest label", { class: "text" }), column("tokens", "top tokens", { class: "text" }),
            isStatic ? null : h("th", { scope: "col" }, h("span", { class: "soft" }, "basket")))),
        h("tbody", {}, rows.map((row) => h("tr", {},
            h("td", { class: "text" }, expertLink(row.expert)), valueName ? h("td", {}, ratioText(row.value)) : null,
            h("td", { class: "optional" }, short(row.mean)), h("td", {}, percent(row.frequency)), h("td", { class: "optional" }, short(row.max)),
            h("td", { class: "text" }, row.label ?? "–", row.ratio ? h("span", { class: "unit" }, " " + ratioText(row.ratio) + (row.ratio < 1e9 ? " ×" : "")) : null),
            h("td", { class: "text" }, row.tokens.join(" "), " ", row.tags.map((tag) => h("a", { class: "tag", href: link("experts", { by: "tag", q: tag }) }, tag))),
            isStatic ? null : h("td", {}, basketButton(row.expert)))))));
}

export async function expertsView(view, info, query) {
    if (!info.index) {
        replace(view, h("section", {}, h("h2", {}, "Experts"), h("p", {}, "This server has no index. Build one with ", h("code", {}, "monet index build"), " and start the server with ", h("code", {}, "--index"), ".")));
        return;
    }
    const labels = info.index.label_sets.flatMap((set) => set.labels.map((label) => ({ set: set.name, label })));
    const by = h("select", { name: "by" }, [["", "all experts"], ["label", "label"], ["token", "token"], ["text", "words in notes, labels, tokens"], ["tag", "tag"], ["fired", "text that fires them"]]
        .filter(([key]) => !isStatic || key === "" || key === "label").map(([key, title]) => h("option", { value: key, selected: key === (query.get("by") ?? "") }, title)));
    const place = h("div", { class: "row grow" });
    const group = h("select", { name: "group" }, h("option", { value: "" }, "all"), info.layers.map((layers, number) => h("option", { value: number, selected: String(number) === query.get("group") }, number + " (layers " + layers + ")")));
    const frequency = h("input", { type: "number", name: "frequency", min: 0, max: 100, step: "any", value: query.get("frequency") ?? "" });
    let input, without;
    const showInput = () => {
        const value = query.get("by") === by.value || (!query.get("by") && !by.value) ? query.get("q") ?? "" : "";
        without = undefined;
        if (by.value === "label") {
            input = h("select", { name: "q" }, labels.map(({ set, label }) => h("option", { value: label, selected: label === value }, info.index.label_sets.length > 1 ? set + ": " + label : label)));
            replace(place, h("div", { class: "grow" }, field("Label", input)));
        } else if (by.value === "fired") {
            input = h("textarea", { name: "q", value, required: true, rows: 2 });
            without = h("textarea", { name: "without", value: query.get("without") ?? "", rows: 2 });
            replace(place, h("div", { class: "grow" }, field("Fires on this text", input)), h("div", { class: "grow" }, field("and not, or less, on this one (optional)", without)));
        } else if (by.value === "tag") {
            input = h("select", { name: "q" }, info.index.tags.map(({ tag, experts }) => h("option", { value: tag, selected: tag === value }, tag + " (" + experts + ")")));
            replace(place, h("div", { class: "grow" }, field("Tag", input)));
        } else if (by.value) {
            input = h("input", { type: "search", name: "q", value, required: true });
            replace(place, h("div", { class: "grow" }, field(by.value === "token" ? "Token" : "Words", input)));
        } else {
            input = undefined;
            replace(place);
        }
    };
    by.addEventListener("change", showInput);
    showInput();
    const result = h("div", {});
    const form = h("form", {
        onsubmit: (event) => {
            event.preventDefault();
            go("experts", { by: by.value, q: input?.value, without: without?.value, group: group.value, frequency: frequency.value });
        }
    }, h("div", { class: "row" }, field("Search by", by), place, isStatic ? null : [field("Group", group), field("Fires on at least %", frequency)], h("button", { class: "main" }, "Search")));
    replace(view, h("section", {}, h("h2", {}, "Experts"), h("p", { class: "soft" }, info.index.experts.toLocaleString("en") + " of " + (info.groups * info.units_per_group).toLocaleString("en") + " experts fired in " + info.index.tokens.toLocaleString("en") + " tokens of " + info.index.corpus), form), h("section", {}, result));
    await attempt(() => search(result, info, query));
}

/// A copy on a disk has the result of some searches, under the number of their label.
function storedSearch(info, by, label) {
    const labels = info.index.label_sets.flatMap((set) => set.labels);
    return by === "label" ? "api/experts/label/" + labels.indexOf(label) : "api/experts";
}

async function search(result, info, query) {
    const by = query.get("by") ?? "";
    const offset = Number(query.get("offset") ?? 0);
    const names = { label: { key: "ratio", title: "ratio" }, token: { key: "share", title: "share" }, fired: { key: "value", title: "score in the text" } };
    const keys = ["mean", "frequency", "max"].concat(by === "label" ? ["ratio"] : by === "token" ? ["share"] : []);
    let answer;
    const began = performance.now();
    if (by === "fired") {
        if (!query.get("q")) return;
        const body = { text: query.get("q"), limit: 100 };
        if (query.get("without")) body.without = query.get("without");
        if (query.get("group")) body.group = Number(query.get("group"));
        answer = await post("api/experts/fired", body);
    } else {
        const values = new URLSearchParams({ limit: pageSize, offset });
        if (by && query.get("q")) values.set(by, query.get("q"));
        if (query.get("group")) values.set("group", query.get("group"));
        if (query.get("frequency")) values.set("min_frequency", Number(query.get("frequency")) / 100);
        // As for specialists: a handful of firings says little.
        else if (by === "label") values.set("min_count", 50);
        if (query.get("sort")) values.set("sort", query.get("sort"));
        if (query.get("order")) values.set("order", query.get("order"));
        answer = await get(isStatic ? storedSearch(info, by, query.get("q")) : "api/experts?" + values);
    }
    const rows = answer.experts;
    say(rows.length + " experts in " + Math.round(performance.now() - began) + " ms");
    const all = Object.fromEntries(query);
    const sorting = by === "fired" || isStatic ? undefined : {
        keys, key: query.get("sort") ?? (by === "label" ? "ratio" : by === "token" ? "share" : "frequency"), ascending: query.get("order") === "asc",
        choose: (key, ascending) => go("experts", { ...all, sort: key, order: ascending ? "asc" : undefined, offset: undefined }),
    };
    replace(result, rows.length === 0 ? h("p", {}, "No expert matches.") : [
        expertTable(rows, names[by], sorting),
        h("div", { class: "spread" },
            h("div", { class: "actions" },
                offset > 0 ? h("a", { href: link("experts", { ...all, offset: offset - pageSize || undefined }) }, "← previous") : null,
                answer.has_more && !isStatic ? h("a", { href: link("experts", { ...all, offset: offset + pageSize }) }, "next →") : null),
            saveTable("experts", ["expert", "value", "mean", "frequency", "max", "label", "ratio", "tokens", "tags"], rows.map((row) => [row.expert, row.value, row.mean, row.frequency, row.max, row.label, row.ratio, row.tokens.join(" "), row.tags.join(" ")]))),
    ]);
}
