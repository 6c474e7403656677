import Foundation
import MonetFoundation

extension RoutingTrace {
    /// A self-contained page with tokens coloured by their strongest expert; selecting an expert
    /// shades every token by its score.
    ///
    /// - `topTokens`: tokens that activate listed experts most, from an index.
    public func html(origin: PageOrigin, topTokens: [UnitID: [String]] = [:]) -> String {
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
        return Page.html(
            title: "\(origin.model) – \(kind.rawValue)",
            body: Self.body(title: origin.model.htmlEscaped, data: data),
            style: Self.style, origin: origin)
    }

    private static let style = """
        main { display: grid; grid-template-columns: minmax(0, 1fr) 22rem; gap: 1.25rem; }
        header { grid-column: 1 / -1; }
        nav { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .75rem; }
        button { font: inherit; font-size: .875rem; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .2rem .6rem; cursor: pointer; }
        button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); font-weight: 600; }
        #text { font: 1.05rem/2.1 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; align-self: start; }
        .token { border-radius: .25rem; padding: .15rem 0; cursor: pointer; }
        .token:hover, .token:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
        .token.chosen { outline: 2px solid var(--ink); outline-offset: 1px; }
        aside { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; align-self: start; position: sticky; top: 1rem; max-height: calc(100vh - 2rem); overflow: auto; }
        aside section { background: none; border: 0; padding: 0; }
        .expert { display: grid; grid-template-columns: 6.5rem 1fr 3rem; gap: .5rem; align-items: center; width: 100%; border: 0; background: none; padding: .1rem .25rem; text-align: left; font-variant-numeric: tabular-nums; }
        .bar { height: .55rem; border-radius: .3rem; background: var(--accent); min-width: 1px; }
        .expert[aria-pressed=true] { outline: 2px solid var(--accent); }
        .score { text-align: right; color: var(--soft); }
        .tops { grid-column: 1 / -1; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
        @media print { main { display: block; } aside { position: static; max-height: none; overflow: visible; margin-top: 1rem; } nav button[aria-pressed=false] { display: none; } }
        @media (max-width: 52rem) { main { grid-template-columns: minmax(0, 1fr); } aside { position: static; max-height: none; } }
        """

    private static func body(title: String, data: String) -> String {
        #"""
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
        """#
    }
}
