// The drawing of an attribution graph: layers go up, positions go across.
import { h, svg, replace } from "./dom.js";
import { quoted } from "./graph-data.js";

const nodeSpacing = 24, nodesPerLine = 8, narrowestColumn = 56, emptyRow = 12, rowMargin = 36, tokenLine = 26, labelWidth = 84;

/// Sides of a polygon and its turn in degrees; experts are circles.
const nodeShapes = { target: [6, 0], others: [4, 0], embedding: [4, 45], bias: [3, -90] };
const kindTitles = [["target", "target"], ["expert", "expert"], ["others", "all other experts of a layer and position"], ["bias", "biases"], ["embedding", "embedding"]];
const arrowKeys = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };

function shape(kind, x, y, radius) {
    if (kind === "expert") return svg("circle", { class: "shape", cx: x, cy: y, r: radius });
    const [sides, turn] = nodeShapes[kind];
    const corner = (number) => {
        const angle = Math.PI * (turn / 180 + 2 * number / sides);
        return (x + 1.2 * radius * Math.cos(angle)).toFixed(1) + "," + (y + 1.2 * radius * Math.sin(angle)).toFixed(1);
    };
    return svg("polygon", { class: "shape", points: Array.from({ length: sides }, (_, number) => corner(number)).join(" ") });
}

export function graphLegend() {
    return h("ul", { class: "legend" },
        kindTitles.map(([kind, title]) => h("li", {}, svg("svg", { width: 18, height: 18, "aria-hidden": "true" }, svg("g", { class: "node " + kind }, shape(kind, 9, 9, 6))), title)),
        [["plus", "adds to the value"], ["minus", "takes from it"]].map(([sign, title]) => h("li", {}, svg("svg", { width: 30, height: 18, "aria-hidden": "true" }, svg("path", { class: "edge strong " + sign, d: "M2 9H28", "--weight": 0.5 })), title)));
}

/// Ends of consecutive spans, with 0 before them.
function ends(sizes) {
    const result = [0];
    for (const size of sizes) result.push(result[result.length - 1] + size);
    return result;
}

/// Nodes of one row and position, strongest first, from left to right.
function cellsOf(data) {
    const cells = new Map();
    for (const node of [...data.nodes].sort((a, b) => a.row - b.row || a.position - b.position || b.share - a.share)) {
        const key = node.row + " " + node.position;
        if (cells.has(key)) cells.get(key).push(node); else cells.set(key, [node]);
    }
    return [...cells.values()];
}

/// Where every node is. Columns and rows are as large as their fullest cell needs.
function layOut(data) {
    const cells = cellsOf(data);
    const columns = data.tokens.map(() => narrowestColumn);
    const rows = Array.from({ length: data.target.row + 1 }, () => emptyRow);
    for (const nodes of cells) {
        const { row, position } = nodes[0];
        columns[position] = Math.max(columns[position], (Math.min(nodes.length, nodesPerLine) + 1) * nodeSpacing);
        rows[row] = Math.max(rows[row], Math.ceil(nodes.length / nodesPerLine) * nodeSpacing + rowMargin);
    }
    const lefts = ends(columns);
    const tops = ends([...rows].reverse()).reverse().slice(1);
    const places = new Map();
    for (const nodes of cells) {
        const { row, position } = nodes[0];
        const lines = Math.ceil(nodes.length / nodesPerLine);
        nodes.forEach((node, number) => {
            const line = Math.floor(number / nodesPerLine);
            const inLine = Math.min(nodesPerLine, nodes.length - line * nodesPerLine);
            places.set(node.id, {
                node, x: lefts[position] + columns[position] / 2 + (number % nodesPerLine - (inLine - 1) / 2) * nodeSpacing,
                y: tops[row] + rows[row] / 2 + (line - (lines - 1) / 2) * nodeSpacing,
            });
        });
    }
    return { places, columns, rows, lefts, tops, width: lefts[columns.length], height: tops[0] + rows[0] };
}

export class GraphDrawing {
    /// - `actions`: what `select` and `pin` do with a node's id.
    constructor(data, actions) {
        Object.assign(this, { data, actions }, layOut(data));
        this.strong = [];
        this.edges = new Map([...data.edges].sort((a, b) => Math.abs(a.weight) - Math.abs(b.weight)).map((edge) => [edge, this.edge(edge)]));
        this.nodeLayer = svg("g", {}, [...this.places.values()].map((place) => this.node(place)));
        this.nameLayer = svg("g", { class: "group-names", "aria-hidden": "true" });
        this.scroller = h("div", { class: "wide" }, this.frame(this.width, "Graph: arrow keys move between nodes, Enter selects, P pins",
            this.rowLines(), this.tokenTexts(), svg("g", {}, [...this.edges.values()]), this.nodeLayer, this.nameLayer));
        this.detail = h("p", { class: "node-detail" });
        this.element = h("div", {}, h("div", { class: "graph" }, this.rowNames(), this.scroller), this.detail);
        this.listen();
    }

    frame(width, label, ...children) {
        const height = this.height + tokenLine;
        return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": label }, children);
    }

    /// The rows' names stay where they are when the drawing is scrolled.
    rowNames() {
        return this.frame(labelWidth, "Layers", this.rows.map((height, row) => height > emptyRow
            ? svg("text", { x: labelWidth - 8, y: this.tops[row] + height / 2 + 4, "text-anchor": "end" }, this.data.rowName(row)) : null));
    }

    rowLines() {
        return svg("g", { class: "row-lines", "aria-hidden": "true" }, this.tops.slice(0, -1).map((y) => svg("path", { d: `M0 ${y}H${this.width}` })));
    }

    tokenTexts() {
        return this.data.tokens.map((token, position) => {
            const text = quoted(token).slice(1, -1);
            const letters = Math.floor(this.columns[position] / 7);
            return svg("text", { x: this.lefts[position] + this.columns[position] / 2, y: this.height + 16, "text-anchor": "middle" },
                text.length > letters ? text.slice(0, letters - 1) + "…" : text, svg("title", {}, quoted(token) + ", position " + position));
        });
    }

    edge({ source, target, weight }) {
        this.heaviest ??= this.data.edges.reduce((most, edge) => Math.max(most, Math.abs(edge.weight)), 0);
        const [from, to] = [this.places.get(source), this.places.get(target)];
        const middle = (from.y + to.y) / 2;
        return svg("path", {
            class: "edge " + (weight < 0 ? "minus" : "plus"), "--weight": Math.sqrt(Math.abs(weight) / this.heaviest).toFixed(3),
            d: `M${from.x} ${from.y}C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${to.y}`,
        });
    }

    node(place) {
        const { node, x, y } = place;
        this.largest ??= Math.max(...this.data.nodes.filter((one) => one.kind !== "target").map((one) => one.share));
        const radius = node.kind === "target" ? 10 : 3.5 + 5.5 * Math.sqrt(node.share / this.largest);
        place.element = svg("g", { class: "node " + node.kind, role: "button", tabindex: -1, "data-id": node.id, "aria-label": this.data.describe(node) },
            svg("circle", { class: "ring", cx: x, cy: y, r: Math.max(11, radius + 4) }), shape(node.kind, x, y, radius));
        return place.element;
    }

    listen() {
        const on = (type, act) => this.nodeLayer.addEventListener(type, (event) => {
            const element = event.target.closest(".node");
            if (element) act(element.dataset.id, event);
        });
        on("pointerover", (id) => this.trace(id));
        on("pointerout", () => this.trace(this.marks.selected));
        on("focusin", (id) => { this.makeCurrent(id); this.trace(id); });
        on("focusout", () => this.trace(this.marks.selected));
        on("click", (id) => this.actions.select(id));
        on("keydown", (id, event) => this.key(id, event));
    }

    key(id, event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === "Enter" || event.key === " ") this.actions.select(id);
        else if (event.key === "p" || event.key === "P") this.actions.pin(id);
        else if (event.key in arrowKeys) this.neighbour(this.places.get(id), ...arrowKeys[event.key])?.element.focus();
        else return;
        event.preventDefault();
    }

    /// The next node in the row, or the nearest one in the next row that has any.
    neighbour(from, up, right) {
        const all = [...this.places.values()];
        if (right !== 0) {
            const row = all.filter((place) => place.node.row === from.node.row);
            return row[row.indexOf(from) + right];
        }
        const beyond = all.filter((place) => (place.node.row - from.node.row) * up > 0);
        const distance = (place) => Math.abs(place.node.row - from.node.row) * 2 * this.width + Math.abs(place.x - from.x);
        return beyond.sort((a, b) => distance(a) - distance(b))[0];
    }

    /// The one node that the tab key reaches.
    makeCurrent(id) {
        this.current?.setAttribute("tabindex", -1);
        this.current = this.places.get(id).element;
        this.current.setAttribute("tabindex", 0);
    }

    /// Shows a node's edges and their other ends strong, and tells about it.
    trace(id) {
        for (const element of this.strong) element.classList.remove("strong");
        const edges = [...this.data.incoming.get(id), ...this.data.outgoing.get(id)];
        this.strong = edges.flatMap((edge) => [this.edges.get(edge), this.places.get(edge.source).element, this.places.get(edge.target).element]);
        this.strong.push(this.places.get(id).element);
        for (const element of this.strong) element.classList.add("strong");
        replace(this.detail, this.data.describe(this.data.byID.get(id)));
    }

    /// Shows what is selected, pinned and grouped.
    update(marks) {
        this.marks = marks;
        for (const [id, { element }] of this.places) {
            const group = marks.groupNumber(id);
            element.classList.toggle("selected", id === marks.selected);
            element.classList.toggle("pinned", marks.pinned.includes(id));
            element.setAttribute("aria-pressed", id === marks.selected);
            if (group < 0) delete element.dataset.group; else element.dataset.group = group % 6;
        }
        this.showGroupNames(marks.groups);
        this.makeCurrent(marks.selected);
        this.trace(marks.selected);
    }

    /// A group's name stands once above each cell that has members.
    showGroupNames(groups) {
        replace(this.nameLayer, groups.flatMap(([name, ...ids], number) => {
            const cells = new Map(ids.map((id) => this.places.get(id)).map((place) => [place.node.row + " " + place.node.position, place]));
            return [...cells.values()].map(({ x, y }) => svg("text", { x, y: y - 15, "text-anchor": "middle", "data-group": number % 6 }, name.length > 16 ? name.slice(0, 15) + "…" : name));
        }));
    }

    /// Scrolls the drawing, and not the page, to a node.
    reveal(id) {
        this.scroller.scrollLeft = this.places.get(id).x - this.scroller.clientWidth / 2;
    }
}
