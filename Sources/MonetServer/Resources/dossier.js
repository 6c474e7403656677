// All that is known of one expert.
import { h, svg, replace, say, short, percent, field, visible } from "./dom.js";
import { get, post, attempt, isStatic } from "./api.js";
import { link } from "./address.js";
import { basketButton, expertLink } from "./experts.js";
import { saveTable, saveFigure, saveJSON } from "./save.js";

export function bars(entries, most) {
    return h("div", {}, entries.map(([name, value, text]) => h("div", { class: "bar" }, h("span", { title: name }, name), h("i", { "--width": (most > 0 ? 100 * value / most : 0) + "%" }), h("span", {}, text))));
}

export function histogram(counts, ends) {
    const most = Math.max(1, ...counts);
    const width = 300, height = 90, step = width / counts.length;
    const figure = svg("svg", { viewBox: `0 0 ${width} ${height + 18}`, role: "img", "aria-label": "Histogram of scores above zero: " + counts.join(", ") },
        svg("g", { class: "bars" }, counts.map((count, place) => svg("rect", { x: place * step + 1, y: height - height * count / most, width: step - 2, height: height * count / most }, svg("title", {}, count + " tokens up to " + short(ends[place]))))),
        svg("text", { x: 0, y: height + 14 }, short(ends[0])), svg("text", { x: width, y: height + 14, "text-anchor": "end" }, short(ends[ends.length - 1])));
    return figure;
}

function contextLine(activation) {
    const most = activation.scores ? Math.max(...activation.scores, activation.score) : activation.score;
    return h("div", { class: "context" }, activation.tokens.map((token, place) => {
        const score = activation.scores ? activation.scores[place] : place === activation.place ? activation.score : 0;
        if (!(score > 0) && place !== activation.place) return visible(token);
        return h("mark", { class: place === activation.place ? "target" : undefined, "--heat": most > 0 ? (0.15 + 0.75 * score / most).toFixed(2) : 0, title: short(score) }, visible(token));
    }));
}

function contextTable(activations) {
    return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "score"), h("th", { class: "text", scope: "col" }, "context"), h("th", { class: "text", scope: "col" }, "labels"))),
        h("tbody", {}, activations.map((activation) => h("tr", {}, h("td", {}, short(activation.score)), h("td", { class: "text" }, contextLine(activation)), h("td", { class: "text soft labels" }, activation.labels.join(", ")))))));
}

export async function dossierView(view, info, unit) {
    const dossier = await attempt(() => get("api/experts/" + unit));
    if (!dossier) return;
    say("");
    const contexts = h("section", {});
    const showContexts = (from) => replace(contexts, h("div", { class: "spread" }, h("h3", {}, "Strongest contexts"),
        isStatic || from.activations.some((activation) => activation.scores) ? null : h("button", {
            type: "button", onclick: async (event) => {
                event.target.disabled = true;
                const measured = await attempt(() => post(`api/experts/${unit}/contexts`, {}));
                if (measured) showContexts(measured); else event.target.disabled = false;
            }
        }, "Colour every token by its score")),
        contextTable(from.activations), from.near_duplicates ? h("p", { class: "soft" }, from.near_duplicates + " more that resemble these are left out") : null,
        from.samples.map((band) => h("details", {}, h("summary", {}, `${band.tokens.toLocaleString("en")} tokens with scores ${band.above === null ? "" : "above " + short(band.above)}${band.up_to === null ? "" : " up to " + short(band.up_to)}`), contextTable(band.activations))),
        saveTable("contexts-" + unit.replace("/", "-"), ["score", "before", "token", "after", "labels", "document", "position"], from.activations.map((a) => [a.score, a.before, a.token, a.after, a.labels.join(" "), a.document, a.position])));
    showContexts(dossier);
    const figure = histogram(dossier.histogram.counts, dossier.histogram.upper_ends);
    const name = "expert-" + unit.replace("/", "-");
    replace(view,
        h("section", {},
            h("div", { class: "spread" }, h("h2", {}, "Expert " + unit), h("div", { class: "actions" }, isStatic ? null : basketButton(unit), h("button", { type: "button", onclick: () => saveJSON(name, dossier) }, "Save JSON"))),
            h("p", { class: "soft" }, "layers " + dossier.layers[0] + "–" + dossier.layers[dossier.layers.length - 1] + (dossier.left === null ? "" : `, halves ${dossier.left} and ${dossier.right}`)),
            h("dl", {}, [["fires on", percent(dossier.frequency)], ["tokens", dossier.count.toLocaleString("en")], ["mean score", short(dossier.mean)], ["largest", short(dossier.max)], ["commonest top token", percent(dossier.token_concentration)]].map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value)))),
            explanations(dossier, unit)),
        h("div", { class: "two" },
            h("div", {}, contexts, isStatic ? null : ownText(unit)),
            h("div", {},
                h("section", {}, h("h3", {}, "Scores"), figure, h("p", { class: "unit" }, "tokens by score, logarithmic"), saveFigure(name + "-scores", figure)),
                Object.entries(dossier.labels).map(([set, statistics]) => labelSection(set, statistics, name)),
                effects(dossier, unit, name), neighbours(dossier), notes(dossier, unit, info))));
}

function explanations(dossier, unit) {
    const list = h("div", {});
    const show = (all) => replace(list, all.map((one) => h("p", {}, "“", one.text, "” ", h("span", { class: "soft" }, one.credible ? "by the model itself" : "by the model itself; it cannot predict the question, so this is noise"))));
    show(dossier.explanations);
    if (isStatic) return list;
    return h("div", {}, list, h("p", {}, h("button", {
        type: "button", onclick: async (event) => {
            event.target.disabled = true;
            const answer = await attempt(() => post(`api/experts/${unit}/explain`, {}));
            if (answer) show(answer.explanations);
            event.target.disabled = false;
        }
    }, "Ask the model what it stands for")));
}

function labelSection(set, statistics, name) {
    const top = statistics.labels.slice(0, 20);
    return h("section", {}, h("h3", {}, set), bars(top.map((label) => [label.label, label.mean, short(label.mean)]), top[0]?.mean ?? 0),
        h("p", { class: "unit" }, `mean score on the label's tokens; entropy ${short(statistics.entropy)} bits` + (statistics.ratio ? `, ${short(statistics.ratio)} × the next` : "")),
        saveTable(name + "-" + set, ["label", "mean", "frequency"], statistics.labels.map((label) => [label.label, label.mean, label.frequency])));
}

function effects(dossier, unit, name) {
    const body = h("div", {});
    const list = (title, tokens) => {
        const most = Math.max(...tokens.map((token) => Math.abs(token.change)), 0);
        return [h("h3", {}, title), bars(tokens.map((token) => [visible(token.token), Math.abs(token.change), (100 * token.change).toFixed(2)]), most)];
    };
    const show = (measured) => replace(body, list("Promotes", measured.promoted), h("p", {}), list("Suppresses", measured.suppressed),
        h("p", { class: "unit" }, `change of the next token's probability through the expert, mean over its ${measured.places} strongest tokens, percentage points`),
        saveTable(name + "-effects", ["token", "change", "log_change"], [...measured.promoted, ...measured.suppressed].map((token) => [token.token, token.change, token.log_change])));
    if (dossier.logit_effects) show(dossier.logit_effects);
    else if (isStatic) return null;
    else replace(body, h("h3", {}, "Effects"), h("button", {
        type: "button", onclick: async (event) => {
            event.target.disabled = true;
            const measured = await attempt(() => post(`api/experts/${unit}/effects`, {}));
            if (measured) show(measured); else event.target.disabled = false;
        }
    }, "Measure the tokens it promotes"));
    return h("section", {}, body);
}

function neighbours(dossier) {
    if (dossier.neighbours.length === 0) return null;
    return h("section", {}, h("h3", {}, "Neighbours"), h("ul", { class: "plain" }, dossier.neighbours.map((neighbour) => h("li", {}, expertLink(neighbour.expert), h("span", { class: "soft" }, ` ${neighbour.shares} half shared, mean ${short(neighbour.mean)}`)))));
}

function ownText(unit) {
    const input = h("textarea", { required: true, rows: 2 });
    const output = h("div", { class: "context", "aria-live": "polite" });
    return h("section", {}, h("h3", {}, "Test a text"), h("form", {
        onsubmit: async (event) => {
            event.preventDefault();
            const answer = await attempt(() => post(`api/experts/${unit}/scores`, { text: input.value }));
            if (!answer) return;
            const most = Math.max(...answer.scores);
            replace(output, answer.tokens.map((token, place) => answer.scores[place] > 0
                ? h("mark", { "--heat": (0.15 + 0.75 * answer.scores[place] / most).toFixed(2), title: short(answer.scores[place]) }, visible(token)) : visible(token)));
            say(most > 0 ? "Largest score in this text: " + short(most) : "The expert does not fire on this text");
        }
    }, field("Your text", input), h("p", {}, h("button", {}, "Show its scores"))), output);
}

function notes(dossier, unit, info) {
    if (isStatic) return dossier.note || dossier.tags.length ? h("section", {}, h("h3", {}, "Notes"), h("p", {}, dossier.note), dossier.tags.map((tag) => h("span", { class: "tag" }, tag))) : null;
    const writable = info.index.is_writable;
    const text = h("textarea", { value: dossier.note, disabled: !writable, maxlength: 20000 });
    const tags = h("input", { value: dossier.tags.join(", "), disabled: !writable });
    return h("section", {}, h("h3", {}, "Notes"), h("form", {
        onsubmit: async (event) => {
            event.preventDefault();
            const stored = await attempt(() => post(`api/experts/${unit}/note`, { note: text.value, tags: tags.value.split(",").map((tag) => tag.trim()).filter(Boolean) }));
            if (!stored) return;
            tags.value = stored.tags.join(", ");
            say("Stored in the index");
        }
    }, field("Note", text), field("Tags, separated by commas", tags), h("p", {}, writable ? h("button", {}, "Store") : h("span", { class: "soft" }, "The index is open for reading only."))));
}
