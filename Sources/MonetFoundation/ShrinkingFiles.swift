import Foundation
import Synchronization

/// Reports a mapped file that another program shortens while it is read.
///
/// The system then sends SIGBUS at the first access beyond the new end. Nothing can continue there; a program that
/// calls `report` ends with a message that names the file, and not with a crash.
public enum ShrinkingFiles {
    /// Installs the handler, once at the start of a program.
    public static func report() {
        _ = table
        _ = isReported.load(ordering: .relaxed)
        var action = sigaction()
        #if os(Linux)
            action.__sigaction_handler.sa_sigaction = { _, information, _ in
                ShrinkingFiles.end(at: information?.pointee._sifields._sigfault.si_addr)
            }
        #else
            action.__sigaction_u.__sa_sigaction = { _, information, _ in
                ShrinkingFiles.end(at: information?.pointee.si_addr)
            }
        #endif
        action.sa_flags = SA_SIGINFO
        sigaction(SIGBUS, &action, nil)
    }

    private struct Entry {
        var start: UInt = 0
        var end: UInt = 0
        var path: UnsafeMutablePointer<CChar>?
    }

    /// A fixed table, allocated once and never moved, so that a signal handler can read it without a lock. Entries
    /// change under `lock` alone; the handler reads that of a mapping in use, which no thread removes. Further
    /// files are mapped without a name.
    private static let capacity = 1024
    nonisolated(unsafe) private static let table: UnsafeMutablePointer<Entry> = {
        let table = UnsafeMutablePointer<Entry>.allocate(capacity: capacity)
        table.initialize(repeating: Entry(), count: capacity)
        return table
    }()
    private static let lock = Mutex(())
    /// Whether a thread has begun to report; several may meet the end of a file at once.
    private static let isReported = Atomic(false)

    static func add(_ bytes: UnsafeRawBufferPointer, path: String) {
        lock.withLock { _ in
            let free = (0..<capacity).first { table[$0].end == 0 }
            guard let free else { return }
            let start = UInt(bitPattern: bytes.baseAddress)
            table[free].path = strdup(path)
            table[free].start = start
            table[free].end = start + UInt(bytes.count)
        }
    }

    static func remove(_ bytes: UnsafeRawBufferPointer) {
        lock.withLock { _ in
            let start = UInt(bitPattern: bytes.baseAddress)
            for place in 0..<capacity where table[place].end != 0 && table[place].start == start {
                free(table[place].path)
                table[place] = Entry()
                return
            }
        }
    }

    private static func end(at address: UnsafeMutableRawPointer?) {
        func write(_ text: StaticString) {
            _ = Foundation.write(STDERR_FILENO, text.utf8Start, text.utf8CodeUnitCount)
        }
        let place = UInt(bitPattern: address)
        var path: UnsafeMutablePointer<CChar>?
        for entry in 0..<capacity where table[entry].start <= place && place < table[entry].end {
            path = table[entry].path
        }
        guard let path else {
            // Not a mapped file: the signal does what it does without a handler.
            signal(SIGBUS, SIG_DFL)
            raise(SIGBUS)
            return
        }
        // The thread that came first reports and ends the program; the others wait for that.
        if isReported.exchange(true, ordering: .relaxed) { while true { pause() } }
        write("error: ")
        _ = Foundation.write(STDERR_FILENO, path, strlen(path))
        write(": cannot be read: it became shorter, or its disk failed, while it was in use\n")
        _exit(1)
    }
}
