import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Templates of strangers end soon, with an error that says which limit they met.
@Suite struct TemplateLimitTests {
    /// What a template gives on a thread with a stack of 512 KB.
    private func outcome(_ source: String) async -> Result<String, any Error> {
        await withCheckedContinuation { continuation in
            let thread = Thread {
                continuation.resume(returning: Result { try ChatTemplate(source).render([]) })
            }
            thread.stackSize = 512 << 10
            thread.start()
        }
    }

    private func expectFailure(_ source: String, _ reason: String) async {
        switch await outcome(source) {
        case .success(let text): Issue.record("\(source.prefix(80)): rendered \(text.prefix(80))")
        case .failure(let error): #expect("\(error)".contains(reason), "\(source.prefix(80)): \(error)")
        }
    }

    private static func nested(_ open: String, _ middle: String, _ close: String, _ count: Int) -> String {
        String(repeating: open, count: count) + middle + String(repeating: close, count: count)
    }

    @Test(arguments: [15, 20_000])
    func nestingIsLimited(count: Int) async {
        let sources = [
            "{{ " + Self.nested("(", "1", ")", count) + " }}",
            "{{ " + Self.nested("[", "1", "]", count) + " }}",
            "{{ " + Self.nested("{'a': ", "1", "}", count) + " }}",
            "{{ " + Self.nested("not ", "1", "", count) + " }}",
            "{{ " + Self.nested("-", "1", "", count) + " }}",
            "{{ " + Self.nested("1 if 0 else ", "1", "", count) + " }}",
            Self.nested("{% if 1 %}", "1", "{% endif %}", count),
            Self.nested("{% for x in [1] %}", "1", "{% endfor %}", count),
        ]
        for source in sources {
            if count > 1000 {
                await expectFailure(source, "levels of")
            } else if case .failure(let error) = await outcome(source) {
                Issue.record("\(source.prefix(80)): \(error)")
            }
        }
    }

    @Test(arguments: ["+1", "|string", ".a", "[0]", ".upper()", " and 1", "**1"])
    func chainsAreLimited(link: String) async {
        await expectFailure(
            "{{ 'a'" + String(repeating: link, count: 60_000) + " }}", "an expression of more than 200 levels"
        )
        _ = await outcome("{{ 'a'" + String(repeating: link, count: 190) + " }}")
    }

    @Test(arguments: [
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100000) }}", "levels"),
        (
            "{% set ns = namespace(l=[1]) %}{% for x in ns.l recursive %}{{ loop(ns.l) }}{% endfor %}",
            "levels of macros"
        ),
        (
            "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}",
            "levels"
        ),
        (
            "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "MB"
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
            "steps"
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s|tojson }}",
            "steps"
        ),
        ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "contains itself"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
        ("{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ 'b' in s }}{% endfor %}", "steps"),
        (
            "{% set k = 'a' * 900000 %}{% for i in range(100000) %}{% if {k: 1}[k] %}{% endif %}{% endfor %}",
            "steps"
        ),
        ("{{ 'a' * 9223372036854775807 }}", "MB"), ("{{ [1] * 9223372036854775807 }}", "MB"),
        ("{{ 'a'|center(9223372036854775807) }}", "MB"),
        ("{{ [[1]]|tojson(indent=9223372036854775807) }}", "MB"),
        ("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", "MB"),
        ("{{ range(100000)|join('a' * 100000) }}", "MB"),
        ("{{ range(100001) }}", "100000"),
        ("{{ range(-9223372036854775807, 9223372036854775807) }}", "100000"),
        ("{{ 9223372036854775807 + 1 }}", "64 bits"), ("{{ (-9223372036854775807 - 1)|abs }}", "64 bits"),
        ("{% set m = -9223372036854775807 - 1 %}{{ m // -1 }}", "64 bits"), ("{{ 2 ** 64 }}", "64 bits"),
        ("{{ 1e300|int }}", "64 bits"), ("{{ '99999999999999999999'|int }}", "64 bits"),
        ("{{ 1e300 * 1e300 }}", "too large"),
    ])
    func runsAreLimited(source: String, reason: String) async { await expectFailure(source, reason) }

    @Test func sourcesAreLimited() async {
        await expectFailure(String(repeating: "a", count: 1_100_000), "bytes")
    }

    /// Values that refer to each other in long chains are released without recursion.
    @Test(arguments: [
        "{% set ns = namespace(l=1) %}{% for i in range(20000) %}{% set ns.l = namespace(l=ns.l) %}{% endfor %}x",
        "{% set ns = namespace(p=1) %}{% for i in range(20000) %}{% set prev = ns.p %}{% macro h() %}{{ prev }}{% endmacro %}{% set ns.p = h %}{% endfor %}x",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}x",
    ])
    func chainsAreReleased(source: String) async { #expect((try? await outcome(source).get()) == "x") }

    @Test func smallestIntegersAreNoTrap() throws {
        let source = """
            {% set m = -9223372036854775807 - 1 %}{{ m % -1 }}{{ 'abc'[m:] }}{{ 'abc'[::m] }}{{ [1][m] }}{{ 'a' * m }}\
            {{ 'abc'.find('c', m, 9223372036854775807) }}{{ [1, 2][::9223372036854775807] }}
            """
        #expect(try ChatTemplate(source).render([]) == "0abcc2[1]")
    }
}
