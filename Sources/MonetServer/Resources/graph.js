// Why a model predicts a token: the form for an attribution graph, and the graph with its panel.
import { h, replace, say, short, percent, field } from "./dom.js";
import { post, attempt } from "./api.js";
import { note } from "./address.js";
import { saveJSON } from "./save.js";
import { AttributionData, GraphMarks, quoted, signed } from "./graph-data.js";
import { GraphDrawing, graphLegend } from "./graph-drawing.js";
import { nodePanel, pinnedSection } from "./graph-panel.js";

let graphController;
/// The last graph is kept, so that the way back from a dossier computes nothing.
let lastGraph = { key: undefined, answer: undefined };

/// Another view ends what still runs for this one.
window.addEventListener("hashchange", () => {
    if (!graphController) return;
    graphController.abort();
    graphController = undefined;
    say("");
});

export function graphView(view, info, query) {
    const form = new GraphForm(query);
    const output = h("div", {});
    const bar = h("progress", { "aria-label": "Computing the graph", hidden: true });
    const stop = h("button", { type: "button", disabled: true, onclick: () => graphController?.abort() }, "Stop");
    let marks = new GraphMarks(query);
    let shownKey;

    const run = async () => {
        graphController?.abort();
        const controller = new AbortController();
        graphController = controller;
        const body = form.body();
        const key = JSON.stringify(body);
        if (shownKey !== undefined && shownKey !== key) marks = new GraphMarks();
        shownKey = key;
        const noteAll = () => note("graph", { ...body, ...marks.values() });
        noteAll();
        showBusy(false);
        const answer = key === lastGraph.key ? lastGraph.answer : await compute(body, controller);
        if (!answer) return;
        lastGraph = { key, answer };
        say("");
        new GraphResult(answer, body, info, marks, noteAll, controller.signal).showIn(output);
    };
    const showBusy = (isBusy) => {
        stop.disabled = bar.hidden = !isBusy;
    };
    const compute = async (body, controller) => {
        showBusy(true);
        replace(output);
        say("Computing the graph …");
        const answer = await attempt(() => post("api/graph", body, controller.signal));
        if (graphController !== controller) return undefined;
        showBusy(false);
        if (controller.signal.aborted) say("Stopped.");
        return answer;
    };
    replace(view, h("section", {}, h("h2", {}, "Graph"), h("p", { class: "soft" }, "Why does the model predict a token? The graph shows which experts contribute to its logit, and by which paths."), form.element(run, stop), bar), output);
    if (form.prompt.value) run();
}

class GraphForm {
    constructor(query) {
        this.prompt = h("textarea", { rows: 2, required: true, value: query.get("prompt") ?? "" });
        this.target = h("input", { value: query.get("target") ?? "", placeholder: "the most likely next token" });
        this.metric = h("input", { value: query.get("metric") ?? "", placeholder: "logit( of)-logit( and)" });
        this.nodes = h("input", { type: "number", min: 1, required: true, value: query.get("nodes") ?? 300 });
        const threshold = (name, value) => h("input", { type: "number", min: 0, max: 1, step: "any", required: true, value: query.get(name) ?? value });
        this.nodeThreshold = threshold("node_threshold", 0.8);
        this.edgeThreshold = threshold("edge_threshold", 0.98);
    }

    element(run, stop) {
        const check = () => this.metric.setCustomValidity(this.target.value && this.metric.value ? "Give a target or a metric, not both." : "");
        this.target.addEventListener("input", check);
        this.metric.addEventListener("input", check);
        const form = h("form", {
            onsubmit: (event) => {
                event.preventDefault();
                run();
            }
        }, field("Prompt", this.prompt),
            h("div", { class: "row" }, h("div", { class: "grow" }, field("Target token (optional; a word begins with a space)", this.target)), h("div", { class: "grow" }, field("or a metric (optional)", this.metric))),
            h("details", {}, h("summary", {}, "Size of the graph"), h("div", { class: "row" }, field("Experts with nodes of their own", this.nodes),
                field("Share of influence kept by nodes", this.nodeThreshold), field("and by edges", this.edgeThreshold))),
            h("div", { class: "actions" }, h("button", { class: "main" }, "Explain"), stop));
        this.prompt.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
        });
        return form;
    }

    /// What the server is asked and the address says; fields that are not given are left out.
    body() {
        return {
            prompt: this.prompt.value, target: this.target.value || undefined, metric: this.metric.value || undefined,
            nodes: Number(this.nodes.value), node_threshold: Number(this.nodeThreshold.value), edge_threshold: Number(this.edgeThreshold.value),
        };
    }
}

class GraphResult {
    constructor(answer, body, info, marks, noteAll, signal) {
        Object.assign(this, { answer, body, info, marks, noteAll, signal });
        this.data = new AttributionData(answer, info);
        marks.keepKnown(this.data);
        this.tests = { known: new Map(), run: (change) => this.test(change) };
        this.actions = {
            select: (id, fromList) => this.select(id, fromList), pin: (id) => this.change(() => marks.pin(id)), isPinned: (id) => marks.pinned.includes(id),
            group: (name, ids) => this.change(() => marks.group(name, ids)), ungroup: (name) => this.change(() => marks.ungroup(name)),
        };
        this.drawing = new GraphDrawing(this.data, this.actions);
        this.panel = h("div", {});
        this.pinned = h("section", { class: "pinned-nodes" });
    }

    showIn(output) {
        replace(output, h("div", { class: "two graph-result" }, h("section", {}, this.heading(), this.drawing.element, graphLegend()), this.panel, this.pinned));
        this.change(() => {});
        this.showPanel();
        this.drawing.reveal(this.marks.selected);
    }

    heading() {
        const { answer, data } = this;
        const probability = answer.graph.nodes.find((node) => node.is_target_logit).token_prob;
        const title = this.body.metric ? answer.target : "Logit of " + quoted(answer.target);
        const count = (shown, all, name) => `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} ${name}`;
        return [
            h("div", { class: "spread" }, h("h2", {}, title + ": " + (this.body.metric ? signed : short)(answer.value), h("span", { class: "soft" }, this.body.metric ? "" : " probability " + percent(probability))), h("button", { type: "button", onclick: () => this.save() }, "Save graph")),
            h("p", { class: "soft" }, `${count(data.nodes.length, answer.nodes_in_all, "nodes")} and ${count(data.edges.length, answer.edges_in_all, "edges")} are shown: replacement score ${short(answer.replacement)}, completeness ${short(answer.completeness)} (1 for the whole graph). Larger nodes have more influence. Arrow keys move between nodes, Enter selects, P pins.`),
        ];
    }

    select(id, fromList) {
        this.change(() => { this.marks.selected = id; });
        this.showPanel();
        if (!fromList) return;
        this.drawing.reveal(id);
        this.panel.querySelector("h2").focus();
    }

    showPanel() {
        replace(this.panel, nodePanel(this.data, this.data.byID.get(this.marks.selected), this.info, this.actions, this.tests));
    }

    change(act) {
        act();
        this.noteAll();
        this.drawing.update(this.marks);
        this.actions.onPins?.();
        replace(this.pinned, pinnedSection(this.data, this.marks, this.actions));
    }

    async test(change) {
        say("Running the model …");
        const result = await post("api/graph/test", { ...this.body, ...change }, this.signal);
        say("");
        return result;
    }

    /// The graph's file with what is marked, as circuit-tracer's page and Neuronpedia read it.
    save() {
        const { graph } = this.answer;
        const { pinned, groups, selected } = this.marks;
        saveJSON("graph-" + graph.metadata.slug, { ...graph, qParams: { ...graph.qParams, pinnedIds: pinned, supernodes: groups, clickedId: selected } });
    }
}
