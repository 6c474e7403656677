import Foundation
import MonetCompute

/// ‖x − y‖ / ‖y‖, the norm-wise relative error; the norm of x where y is zero.
public func relativeError(_ x: Tensor, _ y: Tensor) -> Double {
    relativeError(x.floats().map(Double.init), y.floats().map(Double.init))
}

/// ‖x − y‖ / ‖y‖, the norm-wise relative error; the norm of x where y is zero.
public func relativeError(_ x: [Double], _ y: [Double]) -> Double {
    guard x.count == y.count else { return .infinity }
    let difference = zip(x, y).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
    let norm = y.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return norm > 0 ? difference / norm : difference
}

/// Paths of the fixtures in `Tests/Fixtures`.
public enum Fixture {
    /// The folder of all fixtures.
    public static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Fixtures").path

    /// The path of one file or folder.
    public static func path(_ name: String) -> String { root + "/" + name }
}

/// A fresh folder that is removed when the closure returns.
public func withTemporaryFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    let path = NSTemporaryDirectory() + "/monet-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
}
