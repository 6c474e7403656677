import CMonetKernels
import Foundation

/// How much of the machine this process may use.
public enum ProcessorLimits {
    /// Processors in the affinity mask, capped by the cgroup's quota.
    public static var usableProcessors: Int {
        var count = ProcessInfo.processInfo.activeProcessorCount
        let allowed = Int(monet_affinity_count())
        if allowed > 0 { count = min(count, allowed) }
        if let quota { count = min(count, max(1, Int(quota.rounded(.up)))) }
        return max(1, count)
    }

    /// The processors that this process may use, as a text that is equal for two processes on one machine if they share
    /// these.
    public static var place: String {
        func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        let allowed = text("/proc/self/status").split(separator: "\n").first {
            $0.hasPrefix("Cpus_allowed_list:")
        }
        // Foundation's name of the host may need a network.
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, name.count - 1)
        let host = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return [text("/proc/sys/kernel/random/boot_id"), host, String(allowed ?? "")].joined(separator: "\n")
    }

    /// The number of processors whose time the cgroup grants, if it is limited (cgroup v2 or v1).
    public static var quota: Double? {
        func numbers(_ path: String) -> [Double] {
            guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return [] }
            return text.split(whereSeparator: \.isWhitespace).compactMap { Double($0) }
        }
        let current = numbers("/sys/fs/cgroup/cpu.max")
        if current.count == 2, current[1] > 0 { return current[0] / current[1] }
        let quota = numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        let period = numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
        if let quota = quota.first, let period = period.first, quota > 0, period > 0 { return quota / period }
        return nil
    }
}
