import MonetFoundation
import MonetText
import Testing

/// What Python's `re` and `ast.literal_eval` give, written down from Python 3.11.
@Suite struct PythonSyntaxTests {
    @Test(arguments: [
        (
            #"(-?[$0-9.,]{2,})|(-?[0-9]+)"#, "cost 3, or $12.50 and -7",
            [["3,", ""], ["$12.50", ""], ["", "-7"]]
        ),
        (#"#### (\-?[0-9\.\,]+)"#, "x #### 1,234. done", [["1,234."]]),
        (#"(?P<first_word>\w+) (?P=first_word)"#, "the the cat cat", [["the"], ["cat"]]),
        (#"[[a]+"#, "x[a[ b", [["[a["]]),
        (#"\\boxed{([^}]*)}"#, #"so \boxed{42}"#, [["42"]]),
        (#"a{2}|b{,1}c"#, "aa bc c", [["aa"], ["bc"], ["c"]]),
        (#"x\Z"#, "x\nx", [["x"]]), (#"^b$"#, "a\nb", []), (#"[]x]"#, "]x", [["]"], ["x"]]),
        (#"a\sb"#, "a\u{1f}b a\u{85}b", [["a\u{1f}b"], ["a\u{85}b"]]), (#"(?i)é"#, "É", [["É"]]),
    ])
    func expressionsMatchAsPythons(_ pattern: String, _ text: String, _ expected: [[String]]) throws {
        #expect(try PythonExpression(pattern).matches(in: text) == expected)
    }

    @Test func replacementsAreAsPythons() throws {
        #expect(
            try PythonExpression(#"\(\s*([^\)]*?)\s*\)"#).replacing(in: "f( a b ) ( c)", with: #"(\1)"#)
                == "f(a b) (c)")
        #expect(try PythonExpression("a").replacing(in: "aaa", with: #"\g<0>\n"#, count: 2) == "a\na\na")
        #expect(try PythonExpression("(?P<x>b)").replacing(in: "abc", with: #"[\g<x>]"#) == "a[b]c")
        #expect(throws: PythonExpression.Failure.self) {
            try PythonExpression("a").replacing(in: "a", with: #"\2"#)
        }
    }

    @Test(arguments: ["(", "[a", "a\\", "(?P<x", "(?P=y)", "*"])
    func whatIsNoExpressionIsAnError(_ pattern: String) {
        #expect(throws: PythonExpression.Failure.self) { try PythonExpression(pattern) }
    }

    @Test(arguments: [
        ("['a', \"b'c\", 'd\\n\\x41\\u00e9']", #"["a", "b'c", "d\nAé"]"#), ("('x',)", #"["x"]"#),
        ("(3)", "3"), ("-2.5", "-2.5"),
        ("{'a': 1, 'b': [None, True]}", #"{"a":1, "b":[null, true]}"#), ("'a' 'b'", #""ab""#), ("[]", "[]"),
        (" 7 ", "7"),
        ("1, 2", "[1, 2]"), ("r'\\d'", #""\\d""#), ("'''a\nb'''", #""a\nb""#), ("1_000", "1000"),
    ])
    func literalsAreAsPythons(_ text: String, _ json: String) throws {
        #expect(try PythonLiteral.value(of: text).serialized() == json)
    }

    @Test(arguments: ["", "abc", "[1", "'a", "01", "[1 2]", "{'a'", "1 +", "f(x)", "[1]]", "nan"])
    func whatIsNoLiteralIsAnError(_ text: String) {
        #expect(throws: PythonLiteral.Failure.self) { try PythonLiteral.value(of: text) }
    }

    /// Jinja2 with `StrictUndefined`, `keep_trailing_newline` and neither `trim_blocks` nor `lstrip_blocks`.
    @Test func templatesOfTasksAreRenderedAsTheHarnessDoes() throws {
        func render(_ source: String) throws -> String {
            try TextTemplate(source).render([
                .init("a", .string(" x ")), .init("list", .array([.string("p"), .string("q'")])),
                .init("none", .null),
            ])
        }
        #expect(try render("{{a.strip()}}\n") == "x\n")
        #expect(try render("{% if a %}\n  {% endif %}y\n\n") == "\n  y\n\n")
        #expect(try render("{{list}}") == "['p', \"q'\"]")
        #expect(
            try render("{{a|regex_replace('x', 'y')}}|{{missing is defined}}|{{missing|default('d')}}")
                == " y |False|d")
        for source in [
            "{{missing}}", "{% if missing %}{% endif %}", "{{missing.x}}", "{{missing == 1}}",
            "{% for i in missing %}{% endfor %}", "{{missing|length}}", "{{ [missing] }}", "{{not missing}}",
        ] {
            #expect(throws: TextError.self, "\(source)") { try render(source) }
        }
    }
}
