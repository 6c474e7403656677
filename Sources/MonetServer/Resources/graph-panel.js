// Beside and below the drawing: the selected node with its edges and tests, and what is pinned.
import { h, replace, short, percent, field } from "./dom.js";
import { attempt } from "./api.js";
import { basketButton, expertLink } from "./experts.js";
import { saveTable } from "./save.js";
import { signed } from "./graph-data.js";

const edgesShown = 12;
/// What a test of a removal measures, beside what was predicted: less and less may answer to it.
const measurements = [["predicted", "predicted by the graph"], ["measured", "measured in the model"], ["patterns_held", "with attention patterns held"], ["routing_held", "with routing held"], ["all_held", "with patterns, routing and norms held"]];

function facts(entries) {
    return h("dl", {}, entries.filter(([, value]) => value !== null).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

function nodeButton(node, actions) {
    return h("button", { type: "button", class: "link", onclick: () => actions.select(node.id, true) }, node.name);
}

/// A button that changes the model in one place, and what came of it. A test that ran stays known.
function testOf(change, attributes, title, tests, show) {
    const key = JSON.stringify(change);
    const output = h("div", { "aria-live": "polite" });
    const button = h("button", {
        type: "button", ...attributes, onclick: async () => {
            button.disabled = true;
            const result = await attempt(() => tests.run(change));
            button.disabled = false;
            if (!result) return;
            tests.known.set(key, result);
            replace(output, show(result));
        }
    }, title);
    if (tests.known.has(key)) replace(output, show(tests.known.get(key)));
    return { button, output };
}

function removalTest(node, tests) {
    const { button, output } = testOf({ source: node.id }, {}, "Remove it and compare", tests, (result) => h("table", {},
        h("caption", { class: "soft" }, "change of the value"),
        h("tbody", {}, measurements.filter(([key]) => result[key] !== undefined).map(([key, title]) => h("tr", {}, h("th", { class: "text", scope: "row" }, title), h("td", {}, signed(result[key])))))));
    return [h("div", { class: "actions" }, button), output];
}

/// Only what experts and embeddings send to experts and to the target can be cut in the model.
function canCut(source, target) {
    return ["expert", "embedding"].includes(source.kind) && ["expert", "target"].includes(target.kind);
}

function edgeRow(data, edge, other, actions, tests) {
    const [source, target] = [data.byID.get(edge.source), data.byID.get(edge.target)];
    const cut = canCut(source, target) ? testOf({ source: source.id, target_node: target.id }, { "aria-label": `Cut the edge from ${source.name} to ${target.name}` }, "Cut", tests,
        (result) => `Cut: predicted ${signed(result.predicted)}, measured ${signed(result.measured)}`) : null;
    return h("tr", {}, h("td", { class: "text" }, nodeButton(other, actions), h("div", { class: "soft" }, data.place(other)), cut ? h("div", { class: "soft" }, cut.output) : null),
        h("td", { class: edge.weight < 0 ? "worse" : "better" }, signed(edge.weight)), h("td", {}, cut?.button));
}

function edgeTable(data, title, edges, end, actions, tests) {
    if (edges.length === 0) return null;
    return [h("h3", {}, title), h("table", {},
        h("thead", {}, h("tr", {}, h("th", { class: "text", scope: "col" }, "node"), h("th", { scope: "col" }, "weight"), h("th", { scope: "col" }, "test"))),
        h("tbody", {}, edges.slice(0, edgesShown).map((edge) => edgeRow(data, edge, data.byID.get(edge[end]), actions, tests)))),
        edges.length > edgesShown ? h("p", { class: "soft" }, edges.length === edgesShown + 1 ? "and a weaker one" : `and ${edges.length - edgesShown} weaker ones`) : null];
}

/// The selected node.
export function nodePanel(data, node, info, actions, tests) {
    return h("section", { class: "node-panel", "aria-label": "Selected node" },
        h("h2", { tabindex: -1 }, node.name),
        h("p", { class: "soft" }, data.place(node)),
        facts([["contribution", signed(node.contribution)], ["influence", percent(node.share)], ["score", node.score === null ? null : short(node.score)]]),
        h("div", { class: "actions" }, pinButton(node, actions), node.kind === "expert" ? [basketButton(node.unit), info.index ? h("span", {}, "Dossier ", expertLink(node.unit)) : null] : null),
        node.kind === "expert" ? removalTest(node, tests) : null,
        edgeTable(data, "Comes from", data.incoming.get(node.id), "source", actions, tests),
        edgeTable(data, "Goes to", data.outgoing.get(node.id), "target", actions, tests));
}

function pinButton(node, actions) {
    const button = h("button", { type: "button", onclick: () => { actions.pin(node.id); show(); } });
    const show = () => {
        button.textContent = actions.isPinned(node.id) ? "Unpin" : "Pin";
    };
    actions.onPins = show;
    show();
    return button;
}

/// The pinned nodes, their groups, and the weights between them.
export function pinnedSection(data, marks, actions) {
    if (marks.pinned.length === 0) return [h("h3", {}, "Pinned nodes"), h("p", { class: "soft" }, "None yet. Pin nodes to keep them outlined, to group them and to see what they send to each other.")];
    const boxes = [];
    const name = h("input", { required: true, maxlength: 60 });
    const item = (id) => {
        const node = data.byID.get(id);
        const box = h("input", { type: "checkbox", value: id, "aria-label": "Choose " + data.describe(node) });
        boxes.push(box);
        const group = marks.groups[marks.groupNumber(id)]?.[0];
        return h("li", {}, box, " ", nodeButton(node, actions), group ? [" ", h("span", { class: "tag" }, group)] : null, h("span", { class: "soft" }, ` ${data.place(node)}, ${signed(node.contribution)} `),
            h("button", { type: "button", class: "link", "aria-label": "Unpin " + data.describe(node), onclick: () => actions.pin(id) }, "unpin"));
    };
    const group = (event) => {
        event.preventDefault();
        actions.group(name.value, boxes.filter((box) => box.checked).map((box) => box.value));
    };
    return [h("h3", {}, "Pinned nodes"), h("ul", { class: "plain" }, marks.pinned.map(item)),
        h("form", { onsubmit: group }, h("div", { class: "row" }, h("div", { class: "grow" }, field("Name of a group", name)), h("button", {}, "Group the chosen nodes"))),
        groupTable(data, marks, actions), weightTable(data, marks)];
}

function groupTable(data, marks, actions) {
    if (marks.groups.length === 0) return null;
    return [h("h3", {}, "Groups"), h("div", { class: "wide" }, h("table", {},
        h("caption", { class: "soft" }, "A sum counts what passes through several members once for each."),
        h("thead", {}, h("tr", {}, ["group", "nodes", "contribution", "dissolve"].map((title, place) => h("th", { scope: "col", class: place === 0 ? "text" : undefined }, title)))),
        h("tbody", {}, marks.groups.map(([name, ...ids], number) => h("tr", {}, h("td", { class: "text" }, h("span", { class: "tag group-tag", "data-group": number % 6 }, name)), h("td", {}, ids.length), h("td", {}, signed(data.contribution(ids))),
            h("td", {}, h("button", { type: "button", "aria-label": "Ungroup " + name, onclick: () => actions.ungroup(name) }, "Ungroup")))))))];
}

/// Between groups, and pinned nodes without a group.
function weightTable(data, marks) {
    const sets = marks.groups.map(([name, ...ids]) => ({ name, ids })).concat(
        marks.pinned.filter((id) => marks.groupNumber(id) < 0).map((id) => ({ name: `${data.byID.get(id).name} (${data.byID.get(id).position})`, ids: [id] })));
    const weights = data.weightsBetween(sets);
    if (weights.length === 0) return null;
    return [h("h3", {}, "Edges between them"), h("div", { class: "wide" }, h("table", {},
        h("thead", {}, h("tr", {}, ["from", "to", "weight"].map((title, place) => h("th", { scope: "col", class: place < 2 ? "text" : undefined }, title)))),
        h("tbody", {}, weights.map(({ from, to, weight }) => h("tr", {}, h("td", { class: "text" }, from.name), h("td", { class: "text" }, to.name), h("td", { class: weight < 0 ? "worse" : "better" }, signed(weight))))))),
        saveTable("graph-weights", ["from", "to", "weight"], weights.map(({ from, to, weight }) => [from.name, to.name, weight]))];
}
