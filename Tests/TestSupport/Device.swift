import MonetCompute

/// The devices that every model must run on: the processor, and one written against the public protocol.
public enum Device: String, Sendable, CaseIterable {
    case processor
    case reference

    /// The device's backend.
    public var backend: any Backend {
        switch self {
        case .processor: CPUBackend()
        case .reference: ReferenceBackend()
        }
    }
}
