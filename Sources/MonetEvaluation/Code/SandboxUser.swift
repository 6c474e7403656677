import Foundation
import Synchronization

/// Who a program of root's runs as.
///
/// The kernel exempts its user 0 from the limit on processes, whatever namespaces the processes are in, so a caller who
/// is that user leaves it before anything else. Every run becomes a user of its own, whose processes are counted apart.
final class SandboxUser: Sendable {
    /// The number of a user that nobody else has as long as this object is there.
    let number: UInt32
    private let slot: Int

    private init(slot: Int) {
        self.slot = slot
        let own = (UInt32(bitPattern: getpid()) & 0x3f_ffff) << 8 | UInt32(slot)
        number = Self.isMapped ? Self.first + own : Self.firstOfFew + UInt32(slot)
    }

    deinit {
        let slot = slot
        Self.taken.withLock { $0[slot] = false }
    }

    /// A user for a run by root; nil for other callers, who stay who they are.
    ///
    /// - Throws: `SandboxError.notStarted` if there are more runs at a time than users.
    static func next() throws -> SandboxUser? {
        guard geteuid() == 0 else { return nil }
        let slot = taken.withLock { taken -> Int? in
            let slot = taken.firstIndex(of: false)
            if let slot { taken[slot] = true }
            return slot
        }
        guard let slot else { throw SandboxError.notStarted(reason: "256 programs run already") }
        return SandboxUser(slot: slot)
    }

    /// The command that becomes this user and goes on as what follows it.
    ///
    /// - Throws: `SandboxError.notStarted` where the program that does so is missing.
    func change() throws -> [String] {
        guard let setpriv = SystemTools.path(of: ["setpriv"]) else {
            throw SandboxError.notStarted(
                reason: "root's programs must become another user, and there is no setpriv on PATH "
                    + "(Debian package util-linux)")
        }
        return [
            setpriv, "--reuid", "\(number)", "--regid", "\(number)", "--clear-groups", "--no-new-privs", "--",
        ]
    }

    private static let taken = Mutex([Bool](repeating: false, count: 256))
    /// Above the numbers of accounts, of containers' users and of systemd's.
    private static let first: UInt32 = 1 << 30
    /// In containers that have 65,536 users.
    private static let firstOfFew: UInt32 = 48_000

    /// Whether all numbers from `first` on exist; containers without root's rights have few.
    private static let isMapped: Bool = {
        guard let map = try? String(contentsOfFile: "/proc/self/uid_map", encoding: .utf8) else {
            return true
        }
        return map.split(separator: "\n").contains { line in
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            return numbers.count == 3 && numbers[0] <= first && numbers[0] + numbers[2] >= 1 << 31
        }
    }()

    /// The limit on the processes of a program, as its user's limit.
    ///
    /// - `ownNamespace`: whether the program is in a user namespace of its own.
    /// - `user`: the user of its own that it runs as, if it does.
    /// - Returns: nil where the limit would bind the wrong processes and there is no way to know how many there are.
    static func limit(_ processes: Int, inOwnNamespace ownNamespace: Bool, as user: SandboxUser?) -> Int? {
        #if os(Linux)
            // Its shell is one.
            if user != nil || (ownNamespace && countsByNamespace) { return processes + 1 }
            // All that its user runs is counted.
            return processes + 1 + SystemProcesses.tasks(ofUser: geteuid())
        #else
            return nil
        #endif
    }

    /// Whether the kernel counts a user's processes in each user namespace apart: since 5.14.
    static let countsByNamespace: Bool = {
        var names = utsname()
        uname(&names)
        let release = withUnsafeBytes(of: names.release) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        return numbers.count == 2 && (numbers[0], numbers[1]) >= (5, 14)
    }()
}
