/// A language that programs are judged in, by MultiPL-E's name of it.
package enum ProgramLanguage: String, CaseIterable, Sendable {
    case python = "py"
    case cpp
    case java
    case javascript = "js"
    case lua
    case php

    /// What it is called in messages.
    var title: String {
        switch self {
        case .python: "Python"
        case .cpp: "C++"
        case .java: "Java"
        case .javascript: "JavaScript"
        case .lua: "Lua"
        case .php: "PHP"
        }
    }

    /// What a program's file is called. MultiPL-E's Java programs are of the class `Problem`.
    var fileName: String { self == .java ? "Problem.java" : "program." + rawValue }

    /// An interpreter or compiler.
    struct Tool: Sendable, Equatable {
        /// What it may be called; the first is preferred.
        let names: [String]
        /// Debian's package.
        let package: String
    }

    /// What is needed to run its programs.
    var tools: [Tool] {
        switch self {
        case .python: [Tool(names: ["python3"], package: "python3")]
        case .cpp: [Tool(names: ["g++"], package: "g++")]
        case .java: ["javac", "java"].map { Tool(names: [$0], package: "default-jdk-headless") }
        case .javascript: [Tool(names: ["node", "nodejs"], package: "nodejs")]
        case .lua: [Tool(names: ["lua5.4", "lua5.3", "lua"], package: "lua5.4")]
        case .php: [Tool(names: ["php"], package: "php-cli")]
        }
    }

    /// A library that is not part of a language.
    package struct Library: Sendable, Equatable {
        /// What programs that use it contain.
        let mark: String
        /// Its file, where Debian's package puts it.
        package let path: String
        let package: String
    }

    /// The libraries that MultiPL-E's programs use: all in Java and Lua, and none in C++ unless they ask for it.
    package var library: Library? {
        switch self {
        case .cpp: Library(mark: "boost/", path: "/usr/include/boost/any.hpp", package: "libboost-dev")
        case .java:
            Library(
                mark: "org.javatuples", path: "/usr/share/java/javatuples.jar", package: "libjavatuples-java")
        case .lua: Library(mark: "luaunit", path: "/usr/share/lua/5.4/luaunit.lua", package: "lua-unit")
        case .python, .javascript, .php: nil
        }
    }

    /// How a program is run.
    struct Commands: Sendable, Equatable {
        /// What compiles it first; nil if nothing does.
        let preparation: [String]?
        let command: [String]
        let environment: [String: String]
    }

    /// The commands for a program in the present folder, which may hold `memoryBytes` of memory.
    ///
    /// - `tools`: the paths of `tools`.
    func commands(tools: [String], memoryBytes: Int) -> Commands {
        switch self {
        case .python:
            // Sets are in the same order in every run.
            Commands(
                preparation: nil, command: [tools[0], fileName], environment: ["PYTHONHASHSEED": "0"])
        case .cpp:
            Commands(
                preparation: [tools[0], "-std=c++17", "-w", "-o", "program", fileName],
                command: ["./program"], environment: [:])
        case .java:
            Commands(
                preparation: [tools[0], "-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-Xmx1g"]
                    + ["-encoding", "UTF-8", "-proc:none", "-nowarn", "-cp", classPath, "-d", ".", fileName],
                // Assertions are checked with `-ea` only. Half of the memory is for objects, so that an excess is an
                // error of Java's, not an end by the sandbox: the collector lets garbage grow up to the limit. Threads
                // that use several processors are of no use to small programs.
                command: [tools[1], "-ea", "-Xmx\(max(16, memoryBytes >> 21))m", "-XX:+UseSerialGC"]
                    + ["-XX:ActiveProcessorCount=2", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"]
                    + ["-cp", classPath, "Problem"],
                environment: [:])
        case .javascript:
            Commands(
                preparation: nil,
                command: [tools[0], "--max-old-space-size=\(max(16, memoryBytes >> 21))", fileName],
                environment: [:])
        case .lua: Commands(preparation: nil, command: [tools[0], fileName], environment: [:])
        case .php:
            // Debian's settings for the command line have no limit on memory, write errors to a log and skip `assert`.
            Commands(
                preparation: nil,
                command: [tools[0]]
                    + [
                        "memory_limit=\(memoryBytes)", "display_errors=stderr", "log_errors=0",
                        "zend.assertions=1",
                    ].flatMap { ["-d", $0] } + [fileName],
                environment: [:])
        }
    }

    private var classPath: String { ".:" + (library?.path ?? "") }

    /// Finds the tools.
    ///
    /// - `searchPath`: folders to find them in, separated by colons; those of PATH unless given.
    /// - `isIsolated`: whether programs see the system's folders only, as a tool of the system that comes later on PATH
    ///   than one in a home folder is then taken.
    /// - Throws: `SandboxError.missing`, which names Debian's package.
    package func findTools(on searchPath: String? = nil, isIsolated: Bool) throws -> [String] {
        let searchPath = searchPath ?? SystemTools.searchPath
        return try tools.map { tool in
            if let path = SystemTools.path(of: tool.names, on: searchPath, where: SystemTools.isSystem) {
                return path
            }
            if !isIsolated, let path = SystemTools.path(of: tool.names, on: searchPath) { return path }
            throw SandboxError.missing(
                tool: tool.names[0], package: tool.package, purpose: "running \(title) programs")
        }
    }
}
