import Foundation
import MonetEvaluation
import Testing

/// Finding isolation, and doing without.
@Suite struct IsolationTests {
    @Test func missingBubblewrapIsRefusedWithItsPackage() throws {
        try withFolder { folder in
            for path in [folder, "", "/nowhere"] {
                do {
                    _ = try Isolation.find(on: path)
                    Issue.record("found in \(path)")
                } catch let error as SandboxError {
                    guard case .noIsolation(let reason) = error else {
                        Issue.record("\(error)")
                        continue
                    }
                    #expect(reason.contains("bubblewrap"))
                    #expect("\(error)".hasPrefix("programs cannot be isolated from this machine: "))
                }
            }
        }
    }

    #if os(Linux)
        /// One that is too old, not permitted, or broken.
        @Test(arguments: [
            "echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "exit 0", "kill -9 $$",
            // It does not isolate at all: the shell runs, and its exit code is another.
            #"echo '{ "child-pid": 1 }' >&4; echo >&3; exit 3"#,
        ])
        func uselessBubblewrapIsRefused(_ body: String) throws {
            try withFolder { folder in
                try "#!/bin/sh\n\(body)\n".write(toFile: folder + "/bwrap", atomically: true, encoding: .utf8)
                chmod(folder + "/bwrap", 0o755)
                #expect(throws: SandboxError.self) { try Isolation.find(on: folder) }
            }
        }

        @Test(
            .enabled(if: FileManager.default.isExecutableFile(atPath: Installed.python), "python3 is missing")
        )
        func unsafeProgramsHaveLimits() throws {
            var sandbox = try Sandbox.short(.unsafe)
            // The processes of other tests count too unless root runs them, and they come and go.
            let processes = geteuid() == 0 ? 32 : 128
            sandbox.limits.processes = processes
            // What leaves the session is found, too.
            let daemon = """
                if os.fork() == 0:
                    os.setsid()
                    os.closerange(0, 256)
                    if os.fork() == 0: time.sleep(60)
                    os._exit(0)
                """
            #expect(try sandbox.attack(daemon).ending == .exited(0))
            sandbox.limits.seconds = 0.5
            #expect(try sandbox.attack(daemon + "\ntime.sleep(60)").ending == .timedOut)
            sandbox.limits.seconds = 20
            #expect(try sandbox.attack("while True: print('x' * 1000)").ending == .overOutput)
            let memory = """
                x = []
                try:
                    while True: x.append(os.urandom(1 << 20))
                except MemoryError: time.sleep(60)
                """
            #expect(try sandbox.attack(memory).ending == .overMemory)
            (sandbox.limits.seconds, sandbox.limits.processes) = (0.5, 16)
            // It ends by itself, should nothing else end it.
            let bomb = """
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    try:
                        os.fork()
                        os.setsid()
                    except OSError: pass
                """
            #expect([.timedOut, .overMemory].contains(try sandbox.attack(bomb).ending))
            (sandbox.limits.seconds, sandbox.limits.processes) = (20, processes)
            sandbox.limits.memoryBytes = 2 << 30
            let forks = try sandbox.attack(
                """
                count = 0
                try:
                    while count < 2000:
                        if os.fork() == 0:
                            time.sleep(60)
                            os._exit(0)
                        count += 1
                except OSError as error:
                    print(count <= 1000, errno.errorcode[error.errno], os.getuid() != 0)
                """)
            #expect(forks.output == "True EAGAIN True\n", "\(forks)")
            let other = try sandbox.attack(
                "print(os.path.basename(os.getcwd())[:14], os.listdir('.'), sorted(os.environ))")
            #expect(
                other.output
                    == "monet-program- ['attack.py'] ['HOME', 'LANG', 'MARK', 'MONET_PROGRAM', 'PATH', 'PWD', 'TMPDIR']\n"
            )
        }

        /// What a program leaves in its folder is removed, and not what its links lead to.
        @Test func unsafeFoldersAreRemoved() throws {
            try withFolder { folder in
                try "data".write(toFile: folder + "/file", atomically: true, encoding: .utf8)
                chmod(folder, 0o777)
                // Deeper than a path can name: 20 · 241 bytes.
                let script = """
                    pwd
                    ln -s \(folder) link; ln -s \(folder)/file file
                    mkdir -p closed/inner; touch closed/inner/x; chmod 000 closed
                    name=$(printf %0240d 0)
                    i=0; while [ $i -lt 20 ]; do mkdir $name && cd -P $name || exit 1; i=$((i+1)); done
                    """
                let run = try Sandbox(isolation: .unsafe).run(["/bin/sh", "-c", script])
                let path = run.output.trimmingCharacters(in: .whitespacesAndNewlines)
                #expect(run.ending == .exited(0) && path.contains("monet-program-"), "\(run)")
                #expect(!FileManager.default.fileExists(atPath: path))
                #expect(try String(contentsOfFile: folder + "/file", encoding: .utf8) == "data")
            }
        }
    #endif
}
