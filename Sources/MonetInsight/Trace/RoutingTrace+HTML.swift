import Foundation
import MonetFoundation

extension RoutingTrace {
    /// A self-contained page with tokens coloured by their strongest expert; selecting an expert
    /// shades every token by its score.
    ///
    /// - Parameters:
    ///   - title: shown above the text, for example the model's name.
    ///   - topTokens: tokens that activate listed experts most, from an index.
    public func html(title: String, topTokens: [UnitID: [String]] = [:]) -> String {
        var members = json().members ?? []
        members.append(
            .init(
                "listed",
                .object(
                    listed.map { expert in
                        .init(
                            expert.expert.description,
                            .array(
                                zip(expert.positions, expert.scores).map { [.integer($0), .number($1)] }))
                    })))
        let tops = topTokens.sorted { ($0.key.group, $0.key.index) < ($1.key.group, $1.key.index) }
        members.append(
            .init(
                "top_tokens",
                .object(tops.map { .init($0.key.description, .array($0.value.map { .string($0) })) })))
        // Without "<", nothing in the data can end the script or open a comment or another script in it.
        let data = JSONValue.object(members).serialized().replacingOccurrences(of: "<", with: "\\u003c")
        return Self.page(title: title.htmlEscaped, data: data)
    }

    private static func page(title: String, data: String) -> String {
        #"""
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\#(title) – experts</title>
        <style>
        :root { color-scheme: light dark; --ink: #1c1d21; --paper: #fbfaf7; --line: #d9d6cd; --soft: #6b6a66; --card: #fff; --accent: #b3541e; --light: 78%; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --paper: #17181b; --line: #37383d; --soft: #a09e98; --card: #1f2024; --accent: #f0955c; --light: 34%; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; display: grid; grid-template-columns: minmax(0, 1fr) 22rem; gap: 1.5rem; }
        header { grid-column: 1 / -1; }
        h1 { font-size: 1.25rem; margin: 0; }
        h2 { font-size: .8rem; margin: 0 0 .4rem; color: var(--soft); font-weight: 600; text-transform: uppercase; letter-spacing: .05em; }
        p { margin: .25rem 0 0; color: var(--soft); font-size: .9rem; }
        nav { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .75rem; }
        button { font: inherit; font-size: .875rem; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .2rem .6rem; cursor: pointer; }
        button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); font-weight: 600; }
        #text { font: 1.05rem/2.1 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; align-self: start; }
        .token { border-radius: .25rem; padding: .15rem 0; cursor: pointer; }
        .token:hover, .token:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
        .token.chosen { outline: 2px solid var(--ink); outline-offset: 1px; }
        aside { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; align-self: start; position: sticky; top: 1rem; max-height: calc(100vh - 2rem); overflow: auto; }
        aside section { margin-top: 1rem; }
        .expert { display: grid; grid-template-columns: 6.5rem 1fr 3rem; gap: .5rem; align-items: center; width: 100%; border: 0; background: none; padding: .1rem .25rem; text-align: left; font-variant-numeric: tabular-nums; }
        .bar { height: .55rem; border-radius: .3rem; background: var(--accent); min-width: 1px; }
        .expert[aria-pressed=true] { outline: 2px solid var(--accent); }
        .score { text-align: right; color: var(--soft); }
        .tops { grid-column: 1 / -1; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
        @media print { aside { position: static; max-height: none; } .token, .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
        @media (max-width: 52rem) { main { grid-template-columns: minmax(0, 1fr); } aside { position: static; max-height: none; } }
        </style>
        </head>
        <body>
        <main>
        <header><h1>\#(title)</h1><p id="about"></p><nav id="groups" aria-label="Router group"></nav></header>
        <div id="text"></div>
        <aside id="detail" aria-live="polite"></aside>
        </main>
        <script type="application/json" id="trace">\#(data)</script>
        <script>
        "use strict";
        const trace = JSON.parse(document.getElementById("trace").textContent);
        const state = { group: 0, token: trace.tokens.length > 1 ? 1 : 0, expert: null };
        const make = (tag, attributes = {}, text = "") => {
          const element = document.createElement(tag);
          for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
          element.textContent = text;
          return element;
        };
        // Adjacent indices get distant hues.
        const hue = index => (index * 137.508) % 360;
        const scores = new Map(Object.entries(trace.listed).map(([expert, list]) => [expert, new Map(list)]));
        const largest = new Map([...scores].map(([expert, list]) => [expert, Math.max(...list.values())]));
        const scoreOf = (token, expert) => scores.get(expert)?.get(token.position) ?? 0;
        // Bytes become text with the last byte of a character; line breaks get a sign, so that they can be selected.
        const decoder = new TextDecoder();
        const shown = trace.tokens.map(token => {
          const byte = /^<0x([0-9A-F]{2})>$/.exec(token.text);
          if (!byte) return decoder.decode() + token.text;
          return decoder.decode(new Uint8Array([parseInt(byte[1], 16)]), { stream: true });
        }).map(text => text.replaceAll("\n", "↵\n"));
        const colour = token => {
          const strongest = token.groups[state.group]?.experts[0];
          const score = state.expert ? scoreOf(token, state.expert) : strongest?.score ?? 0;
          const name = state.expert ?? strongest?.expert;
          if (!name || score <= 0) return "transparent";
          // A selected expert is shaded relative to its own strongest token, and wherever it fires at all.
          const share = state.expert
            ? 0.25 + 0.75 * score / largest.get(state.expert)
            : Math.min(1, score / trace.routing_heads + 0.12);
          return `hsl(${hue(Number(name.split("/")[1]))} 75% var(--light) / ${share.toFixed(3)})`;
        };
        document.getElementById("about").textContent =
          `${trace.tokens.length} tokens · ${trace.units_per_group.toLocaleString("en")} ${trace.units} in each of ${trace.groups.length} groups · ` +
          `${trace.routing_heads} routing heads. A token has the colour of its strongest expert; pick an expert to see where else it fires.`;
        const navigation = document.getElementById("groups");
        trace.groups.forEach(group => {
          const first = group.layers[0], last = group.layers[group.layers.length - 1];
          const button = make("button", { type: "button" }, `group ${group.group} · layers ${first}–${last}`);
          button.onclick = () => { state.group = group.group; state.expert = null; draw(); };
          navigation.append(button);
        });
        const text = document.getElementById("text");
        const spans = trace.tokens.map((token, index) => {
          const span = make("span", { class: "token", tabindex: "0", role: "button" }, shown[index] || "·");
          span.title = `token ${token.position}, id ${token.id}, ${token.text}`;
          span.onclick = () => { state.token = index; draw(); };
          span.onkeydown = event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); span.onclick(); } };
          text.append(span);
          return span;
        });
        function draw() {
          [...navigation.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === state.group)));
          spans.forEach((span, index) => {
            span.style.background = colour(trace.tokens[index]);
            span.classList.toggle("chosen", index === state.token);
          });
          const detail = document.getElementById("detail");
          detail.replaceChildren();
          const token = trace.tokens[state.token];
          if (!token) { detail.append(make("p", {}, "There are no tokens.")); return; }
          detail.append(make("h1", {}, `“${token.text}”`), make("p", {}, `token ${token.position}, id ${token.id}`));
          token.groups.forEach(group => {
            const section = make("section");
            section.append(make("h2", {}, `group ${group.group}`),
              make("p", {}, `${group.active_experts} ${trace.units} active` + (group.selected_left === null ? "" : ` (${group.selected_left} left, ${group.selected_right} right halves)`)));
            group.experts.forEach(item => {
              const row = make("button", { type: "button", class: "expert", "aria-pressed": String(state.expert === item.expert) });
              const bar = make("span", { class: "bar" });
              bar.style.width = `${Math.max(1, 100 * item.score / trace.routing_heads)}%`;
              bar.style.background = `hsl(${hue(Number(item.expert.split("/")[1]))} 65% 50%)`;
              bar.style.maxWidth = "100%";
              row.append(make("span", {}, item.expert), bar, make("span", { class: "score" }, item.score.toFixed(3)));
              const tops = trace.top_tokens[item.expert];
              if (tops) row.append(make("span", { class: "tops" }, tops.map(text => `“${text}”`).join(" ")));
              row.onclick = () => { state.expert = state.expert === item.expert ? null : item.expert; state.group = group.group; draw(); };
              section.append(row);
            });
            detail.append(section);
          });
        }
        draw();
        </script>
        </body>
        </html>

        """#
    }
}
