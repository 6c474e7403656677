import Foundation

/// How much memory this process may still take.
public enum MemoryLimits {
    /// Bytes that can be allocated now: the least of what the system has available, what the cgroups grant, and
    /// what the limits of the process leave.
    public static var available: Int {
        #if os(Linux)
            [systemAvailable, cgroupAvailable, addressSpace].compactMap(\.self).min() ?? .max
        #else
            Int(clamping: ProcessInfo.processInfo.physicalMemory)
        #endif
    }

    /// Checks that memory can be had before it is asked for.
    ///
    /// - `purpose`: what it is for, such as "the statistics of 1,572,864 experts".
    /// - Throws: `FileError.outOfMemory` with both numbers.
    public static func require(_ bytes: Int, for purpose: String) throws {
        // Small amounts are not worth reading the limits for.
        guard bytes > 1 << 24 else { return }
        let available = available
        guard bytes <= available else {
            throw FileError.outOfMemory(purpose: purpose, needed: bytes, available: available)
        }
    }

    /// The product of sizes, which are 0 or more; `Int.max` if it is larger.
    public static func product(_ sizes: Int...) -> Int {
        sizes.reduce(1) { total, size in
            let (product, overflow) = total.multipliedReportingOverflow(by: max(0, size))
            return overflow ? .max : product
        }
    }

    /// Ends the program with a message, where an allocation failed that nothing can do without.
    package static func end(allocating bytes: Int) -> Never {
        let text = "error: there is no memory for \(bytes.byteText) more\n"
        _ = text.withCString { Foundation.write(STDERR_FILENO, $0, strlen($0)) }
        _exit(1)
    }

    private static func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    /// MemAvailable of `/proc/meminfo`, with free swap.
    private static var systemAvailable: Int? {
        guard let lines = text("/proc/meminfo")?.split(separator: "\n") else { return nil }
        func value(_ name: String) -> Int? {
            lines.first { $0.hasPrefix(name + ":") }?.split(separator: " ").dropFirst().first
                .flatMap { Int($0) }.map { $0 << 10 }
        }
        return value("MemAvailable").map { $0 + (value("SwapFree") ?? 0) }
    }

    /// What the cgroups (v2, or v1) leave, without the file cache, which is freed when needed.
    private static var cgroupAvailable: Int? {
        var folders = ["/sys/fs/cgroup"]
        if let line = text("/proc/self/cgroup")?.split(separator: "\n").first(where: { $0.hasPrefix("0::") })
        {
            var folder = folders[0]
            for part in line.dropFirst(3).split(separator: "/") {
                folder += "/" + part
                folders.append(folder)
            }
        }
        func number(_ path: String) -> Int? {
            text(path).flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        }
        func cache(_ folder: String, _ keys: [String]) -> Int {
            (text(folder + "/memory.stat") ?? "").split(separator: "\n").reduce(0) { sum, line in
                let parts = line.split(separator: " ")
                return parts.count == 2 && keys.contains(String(parts[0])) ? sum + (Int(parts[1]) ?? 0) : sum
            }
        }
        var left = folders.compactMap { folder -> Int? in
            guard let limit = number(folder + "/memory.max"), let used = number(folder + "/memory.current")
            else { return nil }
            return max(0, limit - used + cache(folder, ["active_file", "inactive_file"]))
        }
        let old = "/sys/fs/cgroup/memory"
        if let limit = number(old + "/memory.limit_in_bytes"), limit < 1 << 60,
            let used = number(old + "/memory.usage_in_bytes")
        {
            left.append(max(0, limit - used + cache(old, ["total_active_file", "total_inactive_file"])))
        }
        return left.min()
    }

    /// What `ulimit -v` leaves.
    private static var addressSpace: Int? {
        var limit = rlimit()
        #if canImport(Glibc)
            let resource = __rlimit_resource_t(RLIMIT_AS.rawValue)
        #else
            let resource = RLIMIT_AS
        #endif
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < 1 << 60 else { return nil }
        let pages = text("/proc/self/statm")?.split(separator: " ").first.flatMap { Int($0) } ?? 0
        return max(0, Int(limit.rlim_cur) - pages * Int(getpagesize()))
    }
}
