#if os(Linux)
    import Foundation

    /// What the processes of a program hold, looked at from outside: no limit of the kernel's counts the memory of
    /// several processes together, short of cgroups, which a user may not have.
    struct ResourceWatch {
        /// The first process of a namespace of its own, or of an unisolated program.
        let root: pid_t
        /// Whether `root` is process 1 of a namespace.
        let isNamespace: Bool
        /// The folders of the namespace in which files can be made.
        let folders: [String]

        /// What is exceeded, if anything.
        func excess(of limits: SandboxLimits) -> ProgramRun.Ending? {
            if memory(of: limits) > limits.memoryBytes { return .overMemory }
            if files > SandboxLimits.files { return .overFiles }
            return nil
        }

        /// Bytes of memory that the processes hold.
        ///
        /// A page that several share counts for each of them at first, which costs least to find out; if that is too
        /// much, it is counted once.
        private func memory(of limits: SandboxLimits) -> Int {
            let processes = processes
            // The tables that list a process's pages can be larger than the pages.
            let sum = processes.reduce(0) { $0 + (bytes(["VmRSS", "VmPTE"], in: $1 + "/status") ?? 0) }
            guard sum > limits.memoryBytes else { return sum }
            return processes.reduce(0) { sum, process in
                // Some processes do not let everybody look.
                let pages = bytes(["Pss"], in: process + "/smaps_rollup")
                let status = process + "/status"
                return sum + (pages ?? bytes(["VmRSS"], in: status) ?? 0)
                    + (bytes(["VmPTE"], in: status) ?? 0)
            }
        }

        /// The sum of what a file of `/proc` says under `names`, in kilobytes; nil if it cannot be read.
        private func bytes(_ names: [String], in path: String) -> Int? {
            guard let text = SystemProcesses.text(path) else { return nil }
            return names.reduce(0) { $0 + (SystemProcesses.value(of: $1, in: text) ?? 0) } << 10
        }

        /// The folders of `/proc` that show the processes.
        private var processes: [String] {
            // The namespace's own `/proc` lists it and nothing else.
            let inner = "/proc/\(root)/root/proc"
            if isNamespace, let numbers = SystemProcesses.numbers(in: inner) {
                return numbers.map { "\(inner)/\($0)" }
            }
            return SystemProcesses.descendants(of: root).map { "/proc/\($0)" }
        }

        /// How many files there are in the namespace.
        private var files: Int {
            guard isNamespace else { return 0 }
            return folders.reduce(0) { sum, folder in
                var status = statvfs()
                guard statvfs("/proc/\(root)/root\(folder)", &status) == 0 else { return sum }
                return sum + Int(status.f_files) - Int(status.f_ffree)
            }
        }
    }
#endif
