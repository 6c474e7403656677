/// How a program ended and what it wrote.
package struct ProgramRun: Sendable, Equatable {
    /// Why it is no longer running.
    package enum Ending: Sendable, Equatable {
        /// It ended with a code. Codes above 128 are reported as the signal that shells take them for.
        case exited(Int32)
        /// A signal ended it.
        case signalled(Int32)
        /// It was killed at the end of its seconds.
        case timedOut
        /// A process of it had used its seconds of processor time.
        case overProcessorTime
        /// Its processes held more memory than they may.
        case overMemory
        /// It wrote more than it may.
        case overOutput
        /// It made more files than it may.
        case overFiles
    }

    /// How it ended.
    package let ending: Ending
    /// Standard output as UTF-8, with marks in the place of what is not; cut at the limit.
    package let output: String
    /// Standard error, likewise.
    package let errorOutput: String
    /// How long the last command ran.
    package let seconds: Double
    /// Whether it got past its preparation, such as being compiled. If not, the rest is the preparation's.
    package let isPrepared: Bool
}
