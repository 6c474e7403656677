import Foundation
import MonetFoundation

extension Sandbox {
    /// Runs a program without isolation, in a temporary folder and a session of its own.
    func runUnsafely(_ job: Job) throws -> ProgramRun {
        let folder = try TemporaryFolder(job.files, owner: job.user?.number)
        defer { folder.remove() }
        let steps = job.steps(inOwnNamespace: false)
        let script = LimitScript(steps: steps, folder: folder.path)
        // What the program starts has this variable, unless it takes care not to.
        let mark = UUID().uuidString
        let environment = job.environment(in: folder.path).merging([Self.markName: mark]) { $1 }
        let program = try Self.start(
            (job.user?.change() ?? []) + ["/bin/sh", "-c", script.text], environment: environment,
            reports: false)
        var watch = ProgramWatch(program, steps: steps, folders: [])
        let result = Result { try watch.run() }
        Self.killLeftovers(of: mark, user: job.user?.number)
        return try result.get()
    }

    private static let markName = "MONET_PROGRAM"

    /// Kills what a program started and left in sessions of their own.
    private static func killLeftovers(of mark: String, user: UInt32?) {
        #if os(Linux)
            func isLeft(_ process: pid_t) -> Bool {
                if let user, let text = SystemProcesses.text("/proc/\(process)/status"),
                    SystemProcesses.value(of: "Uid", in: text) == Int(user)
                {
                    return !SystemProcesses.hasEnded(process)
                }
                let variables = SystemProcesses.text("/proc/\(process)/environ")
                return variables?.contains("\(markName)=\(mark)") ?? false
            }
            // A process that is stopped while it forks finishes that first, so that its child may come after the last
            // look at all processes. Then it is there at the next.
            for _ in 0..<10 {
                // Killed one by one, they would start others in the place of the dead. Stopped, they count as the most
                // that their user may have, until none is left that runs.
                var stopped: Set<pid_t> = []
                for _ in 0..<1000 {
                    let running = (SystemProcesses.numbers() ?? [])
                        .filter { !stopped.contains($0) && isLeft($0) }
                    if running.isEmpty { break }
                    for process in running {
                        _ = SystemProcesses.signal(process, SIGSTOP) { isLeft(process) }
                    }
                    stopped.formUnion(running)
                }
                if stopped.isEmpty { return }
                for process in stopped { _ = SystemProcesses.signal(process, SIGKILL) { isLeft(process) } }
                for _ in 0..<1000 where !stopped.allSatisfy(SystemProcesses.hasEnded) { usleep(1000) }
            }
        #endif
    }
}

/// A folder that nobody else can use, with files.
private struct TemporaryFolder {
    let path: String

    init(_ files: [(name: String, text: String)], owner: UInt32?) throws {
        var template = Array(
            (FileManager.default.temporaryDirectory.path + "/monet-program-XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { throw Descriptor.failure() }
        path = String(decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        do {
            for file in files { try Self.write(file.text, to: path + "/" + file.name, owner: owner) }
            if let owner, chown(path, owner, owner) != 0 { throw Descriptor.failure() }
        } catch {
            remove()
            throw error
        }
    }

    private static func write(_ text: String, to path: String, owner: UInt32?) throws {
        let descriptor = try Descriptor(
            open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644))
        let bytes = Array(text.utf8)
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                Foundation.write(descriptor.number, $0.baseAddress, $0.count)
            }
            guard count > 0 || errno == EINTR else { throw Descriptor.failure() }
            written += max(0, count)
        }
        if let owner, fchown(descriptor.number, owner, owner) != 0 { throw Descriptor.failure() }
    }

    /// Removes it with what the program left: folders that may not be opened, and deeper ones than a path can name.
    func remove() {
        let script = #"chmod -R u+rwx "$1"; rm -rf "$1""#
        guard let nothing = try? Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC)) else { return }
        let child = try? ChildProcess(
            ["/bin/sh", "-c", script, "sh", path], environment: ["PATH": "/usr/bin:/bin"],
            descriptors: [nothing, nothing, nothing])
        _ = child?.wait()
    }
}
