#if os(Linux)
    import Foundation

    /// Processes as `/proc` shows them.
    package enum SystemProcesses {
        /// The contents of a small file of `/proc`; nil if the process is gone or not to be looked at.
        package static func text(_ path: String) -> String? {
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return nil }
            defer { close(descriptor) }
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 1 << 13)
            while true {
                let count = read(descriptor, &buffer, buffer.count)
                if count < 0 { return nil }
                if count == 0 { return String(decoding: bytes, as: UTF8.self) }
                bytes.append(contentsOf: buffer[..<count])
            }
        }

        /// The numbers of the processes that a `/proc` lists; nil if it cannot be read.
        package static func numbers(in folder: String = "/proc") -> [pid_t]? {
            guard let listing = opendir(folder) else { return nil }
            defer { closedir(listing) }
            var numbers: [pid_t] = []
            while let entry = readdir(listing) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                if let number = pid_t(name) { numbers.append(number) }
            }
            return numbers
        }

        /// The processes that `root` started, and theirs, and itself.
        static func descendants(of root: pid_t) -> [pid_t] {
            var found = [root]
            var next = 0
            while next < found.count {
                let process = found[next]
                next += 1
                for thread in numbers(in: "/proc/\(process)/task") ?? [] {
                    let children = text("/proc/\(process)/task/\(thread)/children") ?? ""
                    found += children.split(separator: " ").compactMap { pid_t($0) }
                }
            }
            return found
        }

        /// The process that started `process`.
        package static func parent(of process: pid_t) -> pid_t? {
            text("/proc/\(process)/status").flatMap { value(of: "PPid", in: $0) }.map { pid_t($0) }
        }

        /// Whether a process is no more, or only its number is left for its parent to ask about.
        static func hasEnded(_ process: pid_t) -> Bool {
            text("/proc/\(process)/status").map { $0.contains("\nState:\tZ") } ?? true
        }

        /// How many processes and threads a user runs.
        static func tasks(ofUser user: uid_t) -> Int {
            (numbers() ?? []).reduce(0) { sum, process in
                guard let text = text("/proc/\(process)/status"), value(of: "Uid", in: text) == Int(user)
                else {
                    return sum
                }
                return sum + (value(of: "Threads", in: text) ?? 1)
            }
        }

        /// The first number of a line `name: number …`.
        static func value(of name: String, in text: String) -> Int? {
            for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
                guard line.starts(with: name.utf8), line.dropFirst(name.utf8.count).first == UInt8(ascii: ":")
                else { continue }
                let digits = line.drop { !isDigit($0) }.prefix { isDigit($0) }
                return Int(String(decoding: digits, as: UTF8.self))
            }
            return nil
        }

        private static func isDigit(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }

        /// Sends a signal to a process for sure, not to another that got its number meanwhile.
        ///
        /// - `check`: whether the process that has the number now is the one meant.
        /// - Returns: false if it is gone, or where the system cannot do so.
        package static func signal(_ process: pid_t, _ signal: Int32, if check: () -> Bool) -> Bool {
            // Older C libraries do not have functions for these calls, Glibc's module exports none, and Swift cannot
            // call functions with variable arguments; on the processors that Swift runs on, they are called alike.
            typealias SystemCall = @convention(c) (Int, Int, Int, Int, Int) -> Int
            guard let symbol = dlsym(nil, "syscall") else { return false }
            let call = unsafeBitCast(symbol, to: SystemCall.self)
            let (openProcess, signalProcess) = (434, 424)
            let descriptor = call(openProcess, Int(process), 0, 0, 0)
            guard descriptor >= 0 else { return false }
            defer { close(Int32(descriptor)) }
            return check() && call(signalProcess, descriptor, Int(signal), 0, 0) == 0
        }
    }
#endif
