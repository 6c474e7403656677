// The basket: strengths, mask files, and what an edit costs.
import { h, replace, say, short, field } from "./dom.js";
import { get, post, postForBlob, stream, attempt } from "./api.js";
import { link, note } from "./address.js";
import { basket, basketText, setStrength, remove, replaceBasket } from "./basket.js";
import { expertLink } from "./experts.js";
import { saveTable, saveBytes } from "./save.js";

const mostShown = 200;

export async function editView(view, info) {
    const list = h("div", { class: "wide" });
    const saved = h("div", {});
    const damage = h("div", {});
    const body = () => ({ strengths: Object.fromEntries(basket()) });
    let summaries = new Map();

    const show = () => {
        note("edit", { edit: basketText() });
        const entries = [...basket()];
        replace(list, entries.length === 0
            ? h("p", {}, "The basket is empty. Add experts from ", h("a", { href: link("experts") }, "Experts"), ", from a dossier, or from a token in ", h("a", { href: link("write") }, "Write"), ".")
            : [h("table", {}, h("caption", { class: "soft" }, entries.length + " " + (entries.length === 1 ? info.units.slice(0, -1) : info.units)),
                h("thead", {}, h("tr", {}, h("th", { class: "text", scope: "col" }, "expert"), h("th", { class: "text", scope: "col" }, "strength"), h("th", { class: "text optional", scope: "col" }, "known for"), h("th", { scope: "col" }, h("span", { class: "soft" }, "take out")))),
                h("tbody", {}, entries.slice(0, mostShown).map(([unit, strength]) => row(unit, strength)))),
            entries.length > mostShown ? h("p", { class: "soft" }, `and ${entries.length - mostShown} more`) : null,
            h("div", { class: "actions" },
                h("button", { type: "button", onclick: () => { replaceBasket(entries.map(([unit]) => [unit, 0])); show(); } }, "Remove all"),
                h("button", { type: "button", onclick: () => { replaceBasket([]); show(); } }, "Empty the basket"),
                h("a", { href: link("write", { with: "basket", edit: basketText() }) }, "See the effect in Write"),
                h("button", { type: "button", onclick: async () => { const file = await attempt(() => postForBlob("api/mask-file", body())); if (file) saveBytes("edited.mask", file); } }, "Download as a mask file")),
            saveTable("basket", ["expert", "strength"], entries)]);
    };
    const row = (unit, strength) => {
        const output = h("output", {}, strengthName(strength));
        const range = h("input", {
            type: "range", min: 0, max: 4, step: 0.1, value: Math.min(4, strength), "aria-label": "Strength of " + unit,
            oninput: () => { setStrength(unit, Number(range.value)); replace(output, strengthName(Number(range.value))); note("edit", { edit: basketText() }); }
        });
        const summary = summaries.get(unit);
        return h("tr", {}, h("td", { class: "text" }, info.index ? expertLink(unit) : unit), h("td", { class: "text" }, range, " ", output),
            h("td", { class: "text optional" }, summary?.label ?? "", h("span", { class: "soft" }, summary ? " " + summary.tokens.join(" ") : "")),
            h("td", {}, h("button", { type: "button", "aria-label": "Take out " + unit, onclick: () => { remove(unit); show(); } }, "✕")));
    };

    replace(view, h("section", {}, h("h2", {}, "Edit"), h("p", { class: "soft" }, "0 removes an expert, 1 leaves it unchanged, 2 doubles its output."), list),
        h("div", { class: "columns" }, h("section", {}, h("h3", {}, "Masks"), saved), h("section", {}, h("h3", {}, "Damage"), damage)));
    show();
    if (info.index && basket().size > 0) {
        const known = await attempt(() => post("api/experts/summaries", { experts: [...basket().keys()].slice(0, mostShown) }));
        summaries = new Map((known?.experts ?? []).map((entry) => [entry.expert, entry]));
        show();
    }
    await attempt(() => showMasks(saved, info, body, show));
    showDamage(damage, info, body);
}

function strengthName(strength) {
    return strength === 0 ? "removed" : strength === 1 ? "unchanged" : strength < 1 ? "weakened to " + short(strength) : "amplified to " + short(strength);
}

async function showMasks(element, info, body, show) {
    const masks = (await get("api/masks")).masks;
    const name = h("input", { required: true, maxlength: 100, pattern: "[A-Za-z0-9_][A-Za-z0-9_. \\-]*" });
    const load = async (mask, combine) => {
        const answer = await attempt(() => get("api/masks/" + encodeURIComponent(mask)));
        if (!answer) return;
        const entries = combine ? new Map(basket()) : new Map();
        for (const [unit, strength] of Object.entries(answer.strengths)) entries.set(unit, combine && entries.has(unit) ? entries.get(unit) * strength : strength);
        replaceBasket(entries);
        show();
        say(`Loaded ${answer.experts} experts of ${mask}` + (answer.is_complete ? "" : ", of which only the first are shown"));
    };
    replace(element,
        masks.length === 0 ? h("p", { class: "soft" }, "There are no masks yet.") : h("ul", { class: "plain" }, masks.map((mask) => h("li", {}, mask.name, h("span", { class: "soft" }, ` ${mask.experts} experts `),
            h("button", { type: "button", class: "link", onclick: () => load(mask.name, false), "aria-label": "Load " + mask.name }, "load"), " ",
            h("button", { type: "button", class: "link", onclick: () => load(mask.name, true), "aria-label": "Combine with " + mask.name }, "combine"), " ",
            h("a", { href: link("write", { with: "mask:" + mask.name }), "aria-label": "Write with " + mask.name }, "write")))),
        info.saves_masks ? h("form", {
            onsubmit: async (event) => {
                event.preventDefault();
                const overwrite = masks.some((mask) => mask.name === name.value) && confirm(`Replace the mask ${name.value}?`);
                const answer = await attempt(() => post("api/masks", { name: name.value, ...body(), overwrite }));
                if (!answer) return;
                if (!info.masks.includes(answer.name)) info.masks.push(answer.name);
                say(`Saved; it is now the model ${answer.model}`);
                await showMasks(element, info, body, show);
            }
        }, h("div", { class: "row" }, h("div", { class: "grow" }, field("Save the basket as", name)), h("button", {}, "Save"))) : h("p", { class: "soft" }, "Start the server with --mask-dir to save masks here."));
}

function showDamage(element, info, body) {
    if (!info.measures_damage) {
        replace(element, h("p", { class: "soft" }, "Start the server with --corpus to measure what an edit costs on held-out texts."));
        return;
    }
    const tokens = h("input", { type: "number", min: 100, max: 10000000, value: 20000 });
    const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress", hidden: true });
    const table = h("div", { class: "wide" });
    let controller;
    const button = h("button", {}, "Measure");
    replace(element, h("form", {
        onsubmit: async (event) => {
            event.preventDefault();
            if (controller) {
                controller.abort();
                return;
            }
            controller = new AbortController();
            button.textContent = "Stop";
            bar.hidden = false;
            await attempt(() => stream("api/damage", { ...body(), tokens: Number(tokens.value) }, (step) => {
                if (step.total) {
                    bar.value = step.done / step.total;
                    bar.textContent = Math.round(100 * step.done / step.total) + "%";
                } else showScores(table, step);
            }, controller.signal));
            controller = undefined;
            bar.hidden = true;
            button.textContent = "Measure";
        }
    }, h("div", { class: "row" }, field("Held-out tokens", tokens), button), bar), table);
}

function showScores(element, result) {
    const rows = [{ label: "all", ...result.all }, ...result.labels];
    const change = (row) => row.after.loss - row.before.loss;
    replace(element, h("table", {}, h("caption", { class: "soft" }, "nats per token, and next-token accuracy"),
        h("thead", {}, h("tr", {}, ["label", "loss", "edited", "change", "accuracy", "edited"].map((title, place) => h("th", { scope: "col", class: place === 0 ? "text" : undefined }, title)))),
        h("tbody", {}, rows.map((row) => h("tr", {}, h("td", { class: "text" }, row.label), h("td", {}, row.before.loss.toFixed(3)), h("td", {}, row.after.loss.toFixed(3)),
            h("td", { class: Math.abs(change(row)) < 5e-5 ? undefined : change(row) > 0 ? "worse" : "better" }, (Math.abs(change(row)) < 5e-5 ? "" : change(row) > 0 ? "+" : "−") + Math.abs(change(row)).toFixed(4)), h("td", {}, (100 * row.before.accuracy).toFixed(1) + "%"), h("td", {}, (100 * row.after.accuracy).toFixed(1) + "%"))))),
        saveTable("damage", ["label", "tokens", "loss", "edited_loss", "accuracy", "edited_accuracy"], rows.map((row) => [row.label, row.before.tokens, row.before.loss, row.after.loss, row.before.accuracy, row.after.accuracy])));
    say("Measured.");
}
