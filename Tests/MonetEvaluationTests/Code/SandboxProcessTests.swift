#if os(Linux)
    import Foundation
    import MonetEvaluation
    import Synchronization
    import Testing

    /// Programs that start, keep and kill processes.
    @Suite(
        .enabled(
            if: Installed.canRunPython, "bubblewrap and python3 are not both installed and permitted here"))
    struct SandboxProcessTests {
        /// The others rely on it.
        @Test func processesOfARunningProgramAreFound() throws {
            let sandbox = try Sandbox.short()
            let mark = Mark()
            try withFolder { folder in
                let ended = DispatchSemaphore(value: 0)
                Thread.detachNewThread {
                    // Until the folder holds a file.
                    _ = try? sandbox.run(
                        ["/bin/sh", "-c", "while [ ! -e \(folder)/end ]; do sleep 0.02; done"],
                        environment: ["MARK": mark.text], extraReadOnlyPaths: [folder])
                    ended.signal()
                }
                let deadline = ContinuousClock.now + .seconds(sandbox.limits.seconds)
                var found: [String] = []
                while found.isEmpty, ContinuousClock.now < deadline {
                    usleep(10_000)
                    found = mark.processes
                }
                try "".write(toFile: folder + "/end", atomically: false, encoding: .utf8)
                ended.wait()
                #expect(!found.isEmpty)
            }
            #expect(mark.processes.isEmpty)
        }

        @Test func forksEndAtTheLimit() throws {
            let run = try Sandbox.short().attack(
                """
                count = 0
                try:
                    while count < 1000:
                        if os.fork() == 0:
                            time.sleep(60)
                            os._exit(0)
                        count += 1
                except OSError as error:
                    print(count, errno.errorcode[error.errno])
                """)
            #expect(run.ending == .exited(0))
            // The limit is 32, of which one is the program.
            #expect(run.output == "31 EAGAIN\n")
        }

        @Test func forkBombs() throws {
            let bomb = """
                for number in range(1, 65):
                    try: signal.signal(number, signal.SIG_IGN)
                    except (OSError, ValueError): pass
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    try:
                        os.fork()
                        os.setsid()
                    except OSError: pass
                """
            var sandbox = try Sandbox.short()
            sandbox.limits.seconds = 0.5
            // Each has little to itself, and all together they may hold too much.
            #expect([.timedOut, .overMemory].contains(try sandbox.attack(bomb).ending))
            let mark = Mark()
            let shell = try sandbox.run(
                ["/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60"],
                environment: ["MARK": mark.text])
            #expect(shell.ending != .exited(0))
            try sandbox.check(mark)
        }

        @Test func threadsCount() throws {
            let run = try Sandbox.short().attack(
                """
                import threading
                threads = 0
                try:
                    while threads < 1000:
                        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                        threads += 1
                except RuntimeError:
                    print(threads, flush=True)
                os._exit(0)
                """)
            #expect(run.output == "31\n", "\(run)")
        }

        @Test func signalsThatAreIgnored() throws {
            let run = try Sandbox.short().attack(
                """
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                    signal.signal(number, signal.SIG_IGN)
                print("ready", flush=True)
                while True: os.write(1, b"x" * 1000)
                """)
            #expect(run.ending == .overOutput && run.output.hasPrefix("ready\n"))
        }

        @Test func sleepersEnd() throws {
            var sandbox = try Sandbox.short()
            sandbox.limits.seconds = 0.5
            let mark = Mark()
            let run = try sandbox.run(["/bin/sleep", "1000"], environment: ["MARK": mark.text])
            #expect(run.ending == .timedOut && run.seconds >= 0.5)
            try sandbox.check(mark)
        }

        /// Children in sessions of their own without pipes, of a parent that ends well, fails, or is killed.
        @Test(arguments: [
            ("os._exit(0)", "exited"), ("os._exit(3)", "exited"),
            ("while True: os.write(1, b'x' * 1000)", "overOutput"),
        ])
        func daemonsEndWithTheirProgram(_ end: String, _ ending: String) throws {
            let run = try Sandbox.short().attack(
                """
                reading, writing = os.pipe()
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(writing, b"x")
                        os.closerange(0, 256)
                        while True: time.sleep(60)
                    os._exit(0)
                os.read(reading, 1)
                \(end)
                """)
            #expect("\(run.ending)".hasPrefix(ending))
        }

        @Test func killingEverything() throws {
            let run = try Sandbox.short().attack(
                """
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                if os.fork() == 0: time.sleep(60)
                for process in (1, os.getppid(), -1):
                    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
                        try: os.kill(process, number)
                        except OSError as error: print(process, error)
                time.sleep(0.1)
                for process in range(2, 40000):
                    if process != os.getpid():
                        try:
                            os.kill(process, signal.SIGKILL)
                            print("killed", process)
                        except OSError: pass
                print("alive", os.getpid() < 100)
                """)
            #expect(run.ending == .exited(0) && run.output == "alive True\n", "\(run)")
        }

        @Test func ownSignalsAreReported() throws {
            let sandbox = try Sandbox.short()
            #expect(try sandbox.attack("os.abort()").ending == .signalled(SIGABRT))
            #expect(try sandbox.attack("os.kill(os.getpid(), signal.SIGKILL)").ending == .signalled(SIGKILL))
            #expect(try sandbox.attack("import ctypes; ctypes.string_at(0)").ending == .signalled(SIGSEGV))
            #expect(try sandbox.attack("sys.exit(7)").ending == .exited(7))
            #expect(try sandbox.run(["/nowhere"]).ending == .exited(127))
        }

        @Test func processorTimeEnds() throws {
            var sandbox = try Sandbox.short()
            (sandbox.limits.seconds, sandbox.limits.processorSeconds) = (60, 1)
            // The signal comes after one second, and another one for those who go on.
            let stubborn = try sandbox.attack(
                """
                signal.signal(signal.SIGXCPU, lambda number, frame: print("over", flush=True))
                while True: pass
                """)
            #expect(
                stubborn.ending == .signalled(SIGKILL) && stubborn.output.hasPrefix("over\n"), "\(stubborn)")
            // Others end by it.
            let signal = "os.kill(os.getpid(), signal.SIGXCPU)\ntime.sleep(60)"
            #expect(try sandbox.attack(signal).ending == .overProcessorTime)
        }

        /// Its shell is process 1, whose descriptors it can open unless root's programs are meant, which another user runs.
        @Test func programsDoNotMoveTheirClock() throws {
            var sandbox = try Sandbox.short()
            sandbox.limits.seconds = 1.5
            let run = try sandbox.attack(
                """
                end = time.monotonic() + 30
                try: pipe = open("/proc/1/fd/3", "wb", buffering=0)
                except PermissionError: pipe = open("/dev/null", "wb", buffering=0)
                print("open", flush=True)
                while time.monotonic() < end:
                    pipe.write(b"x" * 100000)
                    time.sleep(0.01)
                """)
            #expect(run.ending == .timedOut && run.output == "open\n", "\(run)")
        }

        @Test func processesAreKilledByWhatTheyAre() throws {
            let nothing = try Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC))
            let child = try ChildProcess(["/bin/sleep", "60"], environment: [:], descriptors: [nothing])
            #expect(SystemProcesses.parent(of: child.identifier) == getpid() && !child.hasEnded)
            #expect(!SystemProcesses.signal(child.identifier, SIGKILL) { false } && !child.hasEnded)
            #expect(SystemProcesses.signal(child.identifier, SIGKILL) { true })
            while !child.hasEnded { usleep(1000) }
            #expect(child.wait() == 128 + SIGKILL && child.hasEnded)
            #expect(!SystemProcesses.signal(child.identifier, SIGKILL) { true })
        }

        @Test func manyRunsLeaveNothing() throws {
            let sandbox = try Sandbox.short()
            func descriptors() -> Int {
                (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
            }
            /// Ended processes that nobody took in.
            func zombies() -> Int {
                (SystemProcesses.numbers() ?? []).count { process in
                    SystemProcesses.text("/proc/\(process)/stat")?.contains(") Z ") ?? false
                }
            }
            let (descriptorsBefore, zombiesBefore) = (descriptors(), zombies())
            for turn in 0..<80 {
                let code = Int32(turn % 100)
                let run = try sandbox.run(["/bin/sh", "-c", "echo \(turn); exit \(code)"])
                #expect(run.ending == .exited(code) && run.output == "\(turn)\n", "\(run)")
            }
            // Other tests run meanwhile, with descriptors and processes of their own.
            #expect(descriptors() - descriptorsBefore < 70)
            #expect(zombies() - zombiesBefore < 70)
        }

        @Test func runsAtATimeAreApart() throws {
            let sandbox = try Sandbox.short()
            let failures = Mutex<[String]>([])
            let group = DispatchGroup()
            for turn in 0..<16 {
                group.enter()
                Thread.detachNewThread {
                    defer { group.leave() }
                    let program =
                        "import os; open('name', 'x').write('\(turn)'); print(os.listdir('.'), open('name').read())"
                    let run = Result { try sandbox.run([Installed.python, "-c", program]) }
                    guard case .success(let result) = run, result.output == "['name'] \(turn)\n" else {
                        return failures.withLock { $0.append("\(run)") }
                    }
                }
            }
            group.wait()
            #expect(failures.withLock { $0 } == [])
        }
    }
#endif
