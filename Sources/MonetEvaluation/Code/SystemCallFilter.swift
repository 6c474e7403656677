#if os(Linux)
    import Glibc

    /// The program for the kernel (seccomp, in classic BPF) that refuses a sandboxed program what the other limits do not
    /// reach.
    ///
    /// - Memory that is in no process's resident set and no file system of the sandbox: nameless files in memory, shared
    ///   segments and message queues of System V. Programs see a system that does not have them.
    /// - Networks that network namespaces do not separate, such as the one between virtual machines and their host.
    /// - Parts of the kernel that no such program needs and that were a way out before: io_uring, BPF, keys, tracing.
    enum SystemCallFilter {
        /// The filter as `bwrap --seccomp` reads it; nil on processors for which there is none.
        static var bytes: [UInt8]? {
            guard let architecture = Architecture.current else { return nil }
            var program = [
                load(Offset.architecture),
                Instruction(code: Code.jumpIfEqual, yes: 1, no: 0, value: architecture.identifier),
                end(Verdict.kill),
                load(Offset.number),
                // Numbers from here up are the same calls by other conventions.
                Instruction(code: Code.jumpIfAtLeast, yes: 0, no: 1, value: 0x4000_0000),
                end(Verdict.error(ENOSYS)),
            ]
            for number in architecture.refused {
                program.append(Instruction(code: Code.jumpIfEqual, yes: 0, no: 1, value: number))
                program.append(end(Verdict.error(ENOSYS)))
            }
            // A socket's family is checked, and every other call is allowed.
            let families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK].map { UInt32($0) }
            program.append(
                Instruction(
                    code: Code.jumpIfEqual, yes: 0, no: UInt8(families.count + 2), value: architecture.socket)
            )
            program.append(load(Offset.firstArgument))
            for (index, family) in families.enumerated() {
                let distance = UInt8(families.count - index)
                program.append(
                    Instruction(code: Code.jumpIfEqual, yes: distance, no: 0, value: family))
            }
            program.append(end(Verdict.error(EAFNOSUPPORT)))
            program.append(end(Verdict.allow))
            return program.flatMap(\.bytes)
        }

        private struct Instruction {
            let code: UInt16
            var yes: UInt8 = 0
            var no: UInt8 = 0
            let value: UInt32

            var bytes: [UInt8] {
                [UInt8(code & 0xff), UInt8(code >> 8), yes, no]
                    + (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
            }
        }

        private enum Code {
            static let load: UInt16 = 0x20
            static let jumpIfEqual: UInt16 = 0x15
            static let jumpIfAtLeast: UInt16 = 0x35
            static let end: UInt16 = 0x06
        }

        /// Where the kernel puts what a filter looks at, on little-endian processors.
        private enum Offset {
            static let number: UInt32 = 0
            static let architecture: UInt32 = 4
            static let firstArgument: UInt32 = 16
        }

        private enum Verdict {
            static let kill: UInt32 = 0x8000_0000
            static let allow: UInt32 = 0x7fff_0000
            static func error(_ number: Int32) -> UInt32 { 0x0005_0000 | UInt32(number) }
        }

        private static func load(_ offset: UInt32) -> Instruction {
            Instruction(code: Code.load, value: offset)
        }

        private static func end(_ verdict: UInt32) -> Instruction {
            Instruction(code: Code.end, value: verdict)
        }

        /// The numbers of system calls, which differ between processors.
        private struct Architecture {
            let identifier: UInt32
            let socket: UInt32
            let refused: [UInt32]

            static var current: Architecture? {
                #if arch(x86_64)
                    Architecture(
                        identifier: 0xc000_003e, socket: 41,
                        refused: [
                            29,  // shmget
                            68,  // msgget
                            101,  // ptrace
                            248, 249, 250,  // add_key, request_key, keyctl
                            298,  // perf_event_open
                            319,  // memfd_create
                            321,  // bpf
                            323,  // userfaultfd
                        ] + everywhere)
                #elseif arch(arm64)
                    Architecture(
                        identifier: 0xc000_00b7, socket: 198,
                        refused: [
                            194,  // shmget
                            186,  // msgget
                            117,  // ptrace
                            217, 218, 219,  // add_key, request_key, keyctl
                            241,  // perf_event_open
                            279,  // memfd_create
                            280,  // bpf
                            282,  // userfaultfd
                        ] + everywhere)
                #else
                    nil
                #endif
            }

            private static let everywhere: [UInt32] = [
                425,  // io_uring_setup
                447,  // memfd_secret
            ]
        }
    }
#endif
