/// What differs between the environments of Jinja2 in which templates of various origins are rendered.
struct JinjaEnvironment: Sendable {
    /// `trim_blocks`: the newline after a block is removed.
    var trimsBlocks = false
    /// `lstrip_blocks`: white space before a block at the start of a line is removed.
    var stripsBlocks = false
    /// `keep_trailing_newline`
    var keepsTrailingNewline = false
    /// `StrictUndefined`: only tests and defaults may use a missing value.
    var isStrict = false
    /// Whether there is the filter `regex_replace`.
    var replacesExpressions = false
    /// The functions that templates can call.
    var functions: [JinjaFunction] = [.range, .dict, .namespace, .lipsum, .cycler, .joiner]

    /// That of chat templates in transformers.
    static let chat = JinjaEnvironment(
        trimsBlocks: true, stripsBlocks: true, functions: JinjaFunction.allCases)
    /// That of task files in lm-evaluation-harness.
    static let task = JinjaEnvironment(keepsTrailingNewline: true, isStrict: true, replacesExpressions: true)
}
