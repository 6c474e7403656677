// An attribution graph as its page needs it: nodes with names, edges by their ends, and what the user marked.
import { short, percent, visible } from "./dom.js";

/// A token on one line, in quotes.
export function quoted(token) {
    const text = visible(token).replaceAll("\n", "");
    return "“" + (text.trim() || text) + "”";
}

/// A change or a contribution, always with its sign.
export function signed(value) {
    return (value > 0 ? "+" : value < 0 ? "−" : "") + short(Math.abs(value));
}

function kindOf(node) {
    if (node.is_target_logit) return "target";
    if (node.feature_type === "embedding" || node.feature_type === "bias") return node.feature_type;
    return node.unit ? "expert" : "others";
}

/// Embeddings lie below layer 0. Files number the target's layer so that one is free between it and the last layer:
/// there are the biases of attention on the way to the target, which are drawn beside it.
function rowOf(node, kind) {
    return kind === "embedding" ? 0 : Number(node.layer) + (kind === "target" ? 0 : 1);
}

export class AttributionData {
    constructor(answer, info) {
        this.graph = answer.graph;
        this.tokens = answer.graph.metadata.prompt_tokens;
        this.targetText = answer.target;
        this.unitName = info.units.slice(0, -1);
        this.nodes = answer.graph.nodes.map((node) => this.read(node));
        this.byID = new Map(this.nodes.map((node) => [node.id, node]));
        this.target = this.nodes.find((node) => node.kind === "target");
        this.edges = answer.graph.links;
        this.incoming = this.edgesBy("target");
        this.outgoing = this.edgesBy("source");
    }

    read(node) {
        const kind = kindOf(node);
        return {
            id: node.node_id, kind, row: rowOf(node, kind), position: node.ctx_idx, unit: node.unit, name: this.nameOf(node, kind),
            contribution: node.contribution, share: node.influence_share, score: kind === "expert" ? node.activation : null,
        };
    }

    nameOf(node, kind) {
        if (kind === "target") return "Target " + quoted(this.targetText);
        if (kind === "embedding") return "Embedding of " + quoted(node.clerp);
        if (kind !== "expert") return node.clerp[0].toUpperCase() + node.clerp.slice(1);
        const name = this.unitName[0].toUpperCase() + this.unitName.slice(1) + " " + node.unit;
        // An expert without a label is called by its number and its halves.
        return node.clerp.startsWith(node.unit) ? name : name + ": " + node.clerp;
    }

    /// The edges of each node that is their `end`, strongest first.
    edgesBy(end) {
        const result = new Map(this.nodes.map((node) => [node.id, []]));
        for (const edge of this.edges) result.get(edge[end]).push(edge);
        for (const edges of result.values()) edges.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
        return result;
    }

    rowName(row) {
        return row === 0 ? "Embeddings" : row === this.target.row ? "Target" : "Layer " + (row - 1);
    }

    place(node) {
        return `${this.rowName(node.row).toLowerCase()}, position ${node.position} ${quoted(this.tokens[node.position])}`;
    }

    /// A node in one line.
    describe(node) {
        return `${node.name}, ${this.place(node)}, contribution ${signed(node.contribution)}, influence ${percent(node.share)}` + (node.score === null ? "" : ", score " + short(node.score));
    }

    contribution(ids) {
        return ids.reduce((sum, id) => sum + this.byID.get(id).contribution, 0);
    }

    /// The summed weights of the edges from one set of nodes to another, strongest first.
    weightsBetween(sets) {
        const owners = new Map(sets.flatMap((set) => set.ids.map((id) => [id, set])));
        const sums = new Map(sets.map((set) => [set, new Map()]));
        for (const { source, target, weight } of this.edges) {
            const [from, to] = [owners.get(source), owners.get(target)];
            if (from && to && from !== to) sums.get(from).set(to, (sums.get(from).get(to) ?? 0) + weight);
        }
        return [...sums].flatMap(([from, ends]) => [...ends].map(([to, weight]) => ({ from, to, weight }))).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    }
}

/// What the user marked: a selected node, pinned nodes, and named groups of these as in graph files, `[name, id, …]`.
export class GraphMarks {
    constructor(query) {
        this.selected = query?.get("selected");
        this.pinned = (query?.get("pinned") ?? "").split(",").filter(Boolean);
        this.groups = readGroups(query?.get("groups"));
    }

    /// Leaves out what the graph does not have: an address may be of another graph.
    keepKnown(data) {
        const known = (id) => data.byID.has(id);
        if (!known(this.selected)) this.selected = data.target.id;
        this.pinned = [...new Set(this.pinned)].filter(known);
        const groups = this.groups;
        this.groups = [];
        for (const [name, ...ids] of groups) this.group(name, ids.filter((id) => this.pinned.includes(id)));
    }

    pin(id) {
        if (!this.pinned.includes(id)) this.pinned.push(id);
        else {
            this.pinned = this.pinned.filter((one) => one !== id);
            this.leave([id]);
        }
    }

    /// Puts nodes into a group, and out of the one where they were.
    group(name, ids) {
        if (ids.length === 0) return;
        this.leave(ids);
        const group = this.groups.find((one) => one[0] === name);
        if (group) group.push(...ids); else this.groups.push([name, ...ids]);
    }

    ungroup(name) {
        this.groups = this.groups.filter((group) => group[0] !== name);
    }

    leave(ids) {
        this.groups = this.groups.map(([name, ...members]) => [name, ...members.filter((id) => !ids.includes(id))]).filter((group) => group.length > 1);
    }

    /// The number of a node's group; -1 without one.
    groupNumber(id) {
        return this.groups.findIndex((group) => group.indexOf(id, 1) > 0);
    }

    /// For the address.
    values() {
        return { selected: this.selected, pinned: this.pinned.join(","), groups: this.groups.length > 0 ? JSON.stringify(this.groups) : "" };
    }
}

function readGroups(text) {
    try {
        const groups = JSON.parse(text || "[]");
        return groups.filter((group) => Array.isArray(group) && group.length > 1 && group.every((part) => typeof part === "string"));
    } catch {
        return [];
    }
}
