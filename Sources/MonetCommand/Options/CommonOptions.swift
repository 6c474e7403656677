import ArgumentParser
import Foundation
import Logging
import MonetCompute
import MonetModel

/// Options that every command takes.
struct CommonOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Lowest severity of messages shown: trace, debug, info, notice, warning, error.",
            discussion: "Can also be set as MONET_LOG_LEVEL."))
    var logLevel: Logger.Level?

    @Flag(help: "Show no progress and no messages except errors.")
    var quiet = false

    @Flag(help: "Use no colours; can also be set as NO_COLOR.")
    var noColor = false

    /// The logger, which writes to standard error.
    var logger: Logger {
        let environment = ProcessInfo.processInfo.environment["MONET_LOG_LEVEL"].flatMap(
            Logger.Level.init(rawValue:))
        return Logger(level: logLevel ?? environment ?? (quiet ? .error : .notice))
    }

    /// Whether to write colours to a stream.
    func usesColor(onTerminal isTerminal: Bool) -> Bool {
        let environment = ProcessInfo.processInfo.environment
        return isTerminal && !noColor && (environment["NO_COLOR"] ?? "").isEmpty
            && environment["TERM"] != "dumb"
    }
}

/// Where computations run.
struct ComputeOptions: ParsableArguments {
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?

    @Option(help: "Precision of dense matrix products: float32 or bfloat16.")
    var dtype: ComputePrecision?

    @Flag(
        help: ArgumentHelp(
            "Sum in an order that depends on neither the batch, the chunks of a prompt nor the threads.",
            discussion: "A text then has the same log-probabilities, bit for bit, in any company."))
    var batchInvariant = false

    func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads is \(threads), expected 1 to 1024")
        }
    }

    /// A backend with a number of threads, all usable ones by default.
    ///
    /// - `shares`: the number of threads for which sums are divided, as many as there are by default.
    /// - Throws: `ComputeError.unknownInstructionSet` for a `MONET_ISA` that cannot be used.
    static func backend(
        threads: Int?, shares: Int? = nil, precision: ComputePrecision = .float32,
        isBatchInvariant: Bool = false
    ) throws -> CPUBackend {
        try Kernels.validateEnvironment()
        let pool =
            threads == nil && shares == nil
            ? WorkerPool.shared
            : WorkerPool(threadCount: threads ?? ProcessorLimits.usableProcessors, shareCount: shares)
        return CPUBackend(
            pool: pool, precision: precision,
            isBatchInvariant: isBatchInvariant)
    }

    /// The backend that these options describe.
    ///
    /// - Throws: `ComputeError.unknownInstructionSet` for a `MONET_ISA` that cannot be used.
    func backend(precision: ComputePrecision? = nil) throws -> CPUBackend {
        try Self.backend(
            threads: threads, precision: precision ?? dtype ?? .float32, isBatchInvariant: batchInvariant)
    }
}

extension ComputePrecision {
    /// bfloat16 for a checkpoint in bfloat16 on processors where that is fast, as in PyTorch.
    static func ofWeights(_ configuration: MonetConfiguration) -> ComputePrecision {
        configuration.dtype == .bfloat16 && configuration.quantization == nil && CPUBackend().hasFastBFloat16
            ? .bfloat16 : .float32
    }
}

extension ComputePrecision: ExpressibleByArgument {
    public init?(argument: String) {
        guard let precision = DType(userName: argument).flatMap({ ComputePrecision(rawValue: $0.torchName) })
        else {
            return nil
        }
        self = precision
    }

    public static var allValueStrings: [String] { allCases.map(\.rawValue) }
}

extension DType: ExpressibleByArgument {
    public init?(argument: String) {
        guard let dtype = DType(userName: argument) else { return nil }
        self = dtype
    }

    public static var allValueStrings: [String] { ["float32", "bfloat16", "float16"] }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

extension Logger {
    /// A logger that writes plain lines to standard error.
    init(level: Logger.Level) {
        self.init(label: "monet", factory: { _ in LineLogHandler(logLevel: level) })
    }
}

/// Writes lines `level: message key=value` to standard error.
private struct LineLogHandler: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let values = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        StandardError.write(
            ("\(event.level): \(event.message)" + values.map { " \($0.key)=\($0.value)" }.joined()).onOneLine
                + "\n")
    }
}
