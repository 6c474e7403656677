/// What a program may use before it is ended.
package struct SandboxLimits: Sendable, Equatable {
    /// Seconds from its start to its end.
    package var seconds = 10.0
    /// Seconds of processor time, for each process by itself.
    package var processorSeconds = 10
    /// Resident memory of all its processes together.
    package var memoryBytes = 512 << 20
    /// Processes and threads at a time. A Java machine has 14 on two processors, Node 7.
    package var processes = 64
    /// Bytes of standard output, and of standard error.
    package var outputBytes = 1 << 20
    /// Bytes of its largest file and, where it is isolated, of all files together in each of the two places that it can
    /// write to, `/tmp` and `/dev/shm`. They are in memory, and not counted by `memoryBytes`.
    package var diskBytes = 64 << 20

    /// Those that suit the small programs of benchmarks.
    package init() {}

    /// For compilers, whose time and memory no benchmark measures: a file that includes the whole standard library of
    /// C++ takes 200 megabytes.
    static let compiling: SandboxLimits = {
        var limits = SandboxLimits()
        (limits.seconds, limits.processorSeconds, limits.memoryBytes) = (30, 30, 2 << 30)
        return limits
    }()

    /// Files and folders at a time where it is isolated. Empty ones take none of `diskBytes`, but a kilobyte of the
    /// system's memory each.
    static let files = 20_000

    /// Open descriptors of a process.
    static let descriptors = 256
}
