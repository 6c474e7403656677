import Foundation

extension Int {
    /// A size in bytes as `2.73 GiB`.
    package var byteText: String {
        var value = Double(self)
        for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] {
            if abs(value) < 1024 { return unit == "B" ? "\(self) B" : String(format: "%.2f \(unit)", value) }
            value /= 1024
        }
        return String(format: "%.2f EiB", value)
    }
}
