// A prompt continued by the model as it is and with edits, side by side.
import { h, replace, say, short, percent, field, visible } from "./dom.js";
import { post, stream, attempt } from "./api.js";
import { note } from "./address.js";
import { basket, basketText } from "./basket.js";
import { basketButton, expertLink } from "./experts.js";
import { saveJSON, saveTable } from "./save.js";

let running;

export async function writeView(view, info, query) {
    running?.abort();
    const prompt = h("textarea", { rows: 3, required: true, value: query.get("prompt") ?? "" });
    const tokens = h("input", { type: "number", min: 1, max: info.context, value: query.get("tokens") ?? 40 });
    const temperature = h("input", { type: "number", min: 0, max: 10, step: 0.1, value: query.get("temperature") ?? 0.8 });
    const seed = h("input", { type: "number", step: 1, value: query.get("seed") ?? 1 });
    const chosen = (query.get("with") ?? (basket().size > 0 ? "basket" : "")).split("\n").filter(Boolean);
    const boxes = [];
    const box = (value, title) => {
        const input = h("input", { type: "checkbox", value, checked: chosen.includes(value) });
        boxes.push(input);
        return h("label", { class: "inline" }, input, title);
    };
    const compared = h("fieldset", {}, h("legend", { class: "soft" }, "Compare with"),
        basket().size > 0 ? box("basket", `the basket (${basket().size} ${basket().size === 1 ? info.units.slice(0, -1) : info.units})`) : null, info.masks.map((mask) => box("mask:" + mask, mask)),
        basket().size === 0 && info.masks.length === 0 ? h("span", { class: "soft" }, "Experts in the basket and masks appear here.") : null);
    const output = h("div", { class: "columns" });
    const inspector = h("section", { hidden: true, "aria-live": "polite" });
    const stop = h("button", { type: "button", disabled: true, onclick: () => running?.abort() }, "Stop");
    const state = () => ({ prompt: prompt.value, tokens: tokens.value, temperature: temperature.value, seed: seed.value, with: boxes.filter((one) => one.checked).map((one) => one.value).join("\n"), edit: basketText() });
    const form = h("form", {
        onsubmit: (event) => {
            event.preventDefault();
            note("write", state());
            run();
        }
    }, field("Prompt", prompt), h("div", { class: "row" }, field("Tokens", tokens), field("Temperature", temperature), field("Seed", seed), compared, h("div", { class: "actions" }, h("button", { class: "main" }, "Continue"), stop)));
    prompt.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    replace(view, h("section", {}, h("h2", {}, "Write"), form), output, inspector);

    async function run() {
        running?.abort();
        const controller = new AbortController();
        running = controller;
        inspector.hidden = true;
        stop.disabled = false;
        const variants = [{ title: "As it is", monet: {} }].concat(boxes.filter((one) => one.checked).map((one) => one.value === "basket"
            ? { title: "Basket", monet: { strengths: Object.fromEntries(basket()) } } : { title: one.value.slice(5), monet: { masks: [one.value.slice(5)] } }));
        const columns = variants.map((variant) => new Column(variant, inspector, info));
        replace(output, columns.map((column) => column.element));
        say("Writing …");
        const compare = () => {
            for (const column of columns.slice(1)) column.mark(columns[0]);
        };
        await Promise.all(columns.map((column) => attempt(() => column.run({
            prompt: prompt.value, max_tokens: Number(tokens.value), temperature: Number(temperature.value), seed: Number(seed.value), echo: true, logprobs: 5, stream: true,
        }, controller.signal, compare))));
        if (running === controller) {
            stop.disabled = true;
            if (!controller.signal.aborted) say("Click a token to see its experts.");
        }
    }
    if (prompt.value) run();
}

class Column {
    constructor(variant, inspector, info) {
        this.variant = variant;
        this.inspector = inspector;
        this.info = info;
        this.tokens = [];
        this.units = new Map();
        this.text = h("div", { class: "text-out busy", "aria-live": "off" });
        this.foot = h("p", { class: "soft" });
        this.element = h("section", {}, h("h3", {}, variant.title), this.text, this.foot);
    }

    async run(body, signal, compare) {
        try {
            await stream("v1/completions", { ...body, monet: { ...this.variant.monet, experts_per_token: 6 } }, (event) => {
                const choice = event.choices[0];
                if (!choice) return;
                for (const [place, position] of (choice.monet?.positions ?? []).entries()) this.units.set(position, choice.monet.units[place]);
                const logs = choice.logprobs;
                const prompts = this.tokens.length === 0 ? logs.tokens.length - (choice.text === "" && logs.tokens.length === 0 ? 0 : 1) : -1;
                logs.tokens.forEach((token, place) => this.add(token, logs.token_logprobs[place], logs.top_logprobs[place], place < prompts));
                if (choice.finish_reason) this.finish(choice.finish_reason);
                compare();
            }, signal);
        } finally {
            this.text.classList.remove("busy");
        }
    }

    add(text, logProbability, top, isPrompt) {
        const place = this.tokens.length;
        const probability = logProbability === null ? null : Math.exp(logProbability);
        const element = h("button", {
            type: "button", class: "token" + (isPrompt ? " prompt" : ""), "--heat": logProbability === null ? 0 : Math.min(0.6, -logProbability / 16).toFixed(2),
            title: probability === null ? undefined : "probability " + percent(probability), onclick: () => this.inspect(place),
        }, visible(text));
        this.tokens.push({ text, logProbability, top, isPrompt, element });
        this.text.append(element);
    }

    /// Tokens from the first difference on are marked.
    mark(other) {
        let differs = false;
        this.tokens.forEach((token, place) => {
            differs ||= other.tokens[place] !== undefined && other.tokens[place].text !== token.text;
            token.element.classList.toggle("differs", differs);
        });
    }

    finish(reason) {
        const drawn = this.tokens.filter((token) => !token.isPrompt && token.logProbability !== null);
        const mean = drawn.reduce((sum, token) => sum + token.logProbability, 0) / Math.max(1, drawn.length);
        replace(this.foot, `${drawn.length} tokens, ended by ${reason}, mean log-probability ${short(mean)}. Darker: less likely.`);
        this.element.append(h("div", { class: "actions" }, h("button", { type: "button", onclick: () => saveJSON("text", this.tokens.map((token, place) => ({ token: token.text, log_probability: token.logProbability, experts: this.unitsOf(place) ?? null }))) }, "Save JSON")));
    }

    /// The begin token runs first and is no part of the text.
    unitsOf(place) {
        const positions = this.units.size;
        const hidden = this.hidesFirst ??= positions > 0 && this.tokens[0]?.logProbability !== null ? 1 : 0;
        return this.units.get(place + hidden);
    }

    async inspect(place) {
        for (const token of this.tokens) token.element.setAttribute("aria-pressed", token === this.tokens[place]);
        const token = this.tokens[place];
        const units = this.unitsOf(place);
        const groups = h("div", { class: "columns" });
        const alternatives = Object.entries(token.top ?? {}).sort((a, b) => b[1] - a[1]);
        replace(this.inspector,
            h("h2", {}, "“", visible(token.text).trim() || visible(token.text), "” ", h("span", { class: "soft" }, this.variant.title)),
            alternatives.length ? h("p", { class: "soft" }, "Likely here: ", alternatives.map(([text, value]) => `“${visible(text)}” ${percent(Math.exp(value))}`).join(", ")) : null,
            units ? groups : h("p", { class: "soft" }, "This token was the last one drawn: no expert has read it."));
        this.inspector.hidden = false;
        if (!units) return;
        const known = this.info.index ? await attempt(() => post("api/experts/summaries", { experts: units.map((unit) => unit.unit) })) : undefined;
        const summaries = new Map((known?.experts ?? []).map((entry) => [entry.expert, entry]));
        const byGroup = Map.groupBy ? Map.groupBy(units, (unit) => unit.unit.split("/")[0]) : units.reduce((map, unit) => map.set(unit.unit.split("/")[0], [...(map.get(unit.unit.split("/")[0]) ?? []), unit]), new Map());
        replace(groups, [...byGroup].map(([group, entries]) => h("div", {}, h("h3", {}, `Group ${group}, layers ${this.info.layers[group]}`), h("table", {}, h("tbody", {}, entries.map((entry) => {
            const summary = summaries.get(entry.unit);
            return h("tr", {}, h("td", { class: "text" }, this.info.index ? expertLink(entry.unit) : entry.unit), h("td", {}, short(entry.score)), h("td", { class: "text" }, summary?.label ?? "", h("span", { class: "soft" }, summary ? " " + summary.tokens.join(" ") : "")), h("td", {}, basketButton(entry.unit)));
        }))))));
        this.inspector.append(saveTable("experts-of-token", ["expert", "score", "label", "tokens"], units.map((unit) => [unit.unit, unit.score, summaries.get(unit.unit)?.label, summaries.get(unit.unit)?.tokens.join(" ")])));
    }
}
