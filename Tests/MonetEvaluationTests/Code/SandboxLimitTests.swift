#if os(Linux)
    import Foundation
    import MonetEvaluation
    import Testing

    /// Programs that use too much.
    @Suite(
        .enabled(
            if: Installed.canRunPython, "bubblewrap and python3 are not both installed and permitted here"))
    struct SandboxLimitTests {
        @Test func endlessOutputIsCut() throws {
            let sandbox = try Sandbox.short()
            for stream in ["stdout", "stderr"] {
                let run = try sandbox.attack("while True: sys.\(stream).write('x' * 1000)")
                #expect(run.ending == .overOutput)
                let text = stream == "stdout" ? run.output : run.errorOutput
                #expect(text == String(repeating: "x", count: 100_000))
            }
        }

        @Test func largeOutputOnBothStreamsIsWhole() throws {
            var sandbox = try Sandbox.short()
            sandbox.limits.outputBytes = 3_000_000
            let run = try sandbox.attack(
                "for _ in range(20):\n    sys.stderr.write('e' * 150000)\n    sys.stdout.write('o' * 150000)")
            #expect(run.ending == .exited(0))
            #expect(run.output.utf8.count == 3_000_000 && run.errorOutput.utf8.count == 3_000_000)
            // One byte more is too much.
            let more = try sandbox.attack("sys.stdout.write('o' * 3000001)")
            #expect(more.ending == .overOutput && more.output.utf8.count == 3_000_000)
        }

        @Test func outputThatIsNoText() throws {
            let run = try Sandbox.short().attack(
                #"os.write(1, b"a\0\xff\xfe\xc3b\n"); os.write(2, b"\x80\r\x1b[31m")"#)
            #expect(
                run.output == "a\0\u{fffd}\u{fffd}\u{fffd}b\n" && run.errorOutput == "\u{fffd}\r\u{1b}[31m")
        }

        @Test func closedStreamsAreNoEnd() throws {
            let run = try Sandbox.short().attack("os.closerange(0, 256); time.sleep(0.1); os._exit(5)")
            #expect(run.ending == .exited(5))
        }

        @Test func filledDisksAreSmall() throws {
            let sandbox = try Sandbox.short()
            let run = try sandbox.attack(
                """
                total = 0
                for folder in ("/tmp", "/tmp/work", "/dev/shm", "/", "/dev", "/var/tmp"):
                    for number in range(100):
                        try:
                            file = open(f"{folder}/{number}", "wb", buffering=0)
                            while total < 1 << 30: total += file.write(b"x" * (1 << 16))
                        except OSError: pass
                print(total)
                """)
            let total = try #require(
                Int(run.output.trimmingCharacters(in: .whitespacesAndNewlines)), "\(run)")
            // Two file systems of 4 MiB.
            #expect(total > 7 << 20 && total <= 8 << 20)
        }

        @Test func emptyFilesCount() throws {
            var sandbox = try Sandbox.short()
            sandbox.limits.seconds = 60
            let run = try sandbox.attack(
                "number = 0\nwhile True:\n    open(f'{number}', 'w').close()\n    number += 1")
            #expect(run.ending == .overFiles)
        }

        @Test func openFilesAndDumpsAreLimited() throws {
            let run = try Sandbox.short().attack(
                """
                import resource
                files = []
                try:
                    while True: files.append(open("/dev/null"))
                except OSError as error: print(len(files) < 256, errno.errorcode[error.errno])
                print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))
                """)
            #expect(run.output == "True EMFILE\n(0, 0) (256, 256)\n", "\(run)")
        }

        /// Ways of taking memory: the program's own, that of children, and shared memory. Those that the kernel refuses
        /// more before they are looked at wait.
        @Test(arguments: [
            """
            import ctypes; ctypes.CDLL(None).prctl(4, 0)
            block = []
            try:
                while True: block.append(os.urandom(1 << 20))
            except MemoryError: time.sleep(60)
            """,
            """
            block = []
            try:
                while True: block.append(bytearray(os.urandom(1 << 12)) * 256)
            except MemoryError: time.sleep(60)
            """,
            """
            for _ in range(20):
                if os.fork() == 0:
                    block = bytearray(b"x") * (20 << 20)
                    time.sleep(60)
            time.sleep(60)
            """,
            """
            import mmap
            shared = mmap.mmap(-1, 1 << 30)
            for place in range(0, 1 << 30, 4096): shared[place] = 1
            time.sleep(60)
            """,
            """
            import ctypes, mmap
            tables = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)
            for place in range(0, 1 << 40, 2 << 20): tables[place]
            time.sleep(60)
            """,
        ])
        func memoryBombs(_ program: String) throws {
            let sandbox = try Sandbox.short()
            #expect(try sandbox.attack(program).ending == .overMemory)
        }

        @Test func sharedPagesCountOnce() throws {
            let sandbox = try Sandbox.short()
            // Ten processes with the same 20 MiB. Some may end while they are looked at one after another, so that the
            // rest share among fewer: in the worst case, it adds up to 20 · (1 + 1/2 + … + 1/10) = 59 MiB.
            let run = try sandbox.attack(
                """
                block = bytearray(b"x") * (20 << 20)
                for _ in range(9):
                    if os.fork() == 0:
                        time.sleep(0.5)
                        os._exit(0)
                for _ in range(9): os.wait()
                print("done")
                """)
            #expect(run.ending == .exited(0) && run.output == "done\n", "\(run)")
        }

        @Test func memoryOfNoProcessIsRefused() throws {
            let run = try Sandbox.short().attack(
                """
                import ctypes
                library = ctypes.CDLL(None, use_errno=True)
                try: os.memfd_create("x")
                except OSError as error: print(errno.errorcode[error.errno])
                for call in (lambda: library.shmget(0, 1 << 20, 0o1600), lambda: library.msgget(0, 0o1600),
                             lambda: library.ptrace(0, 0, 0, 0)):
                    print(call(), errno.errorcode[ctypes.get_errno()])
                # One huge request, which the kernel would grant.
                try: bytearray(1 << 34)
                except MemoryError: print("MemoryError")
                """)
            #expect(run.output == "ENOSYS\n-1 ENOSYS\n-1 ENOSYS\n-1 ENOSYS\nMemoryError\n", "\(run)")
        }

        @Test func preparationsHaveLimitsOfTheirOwn() throws {
            var sandbox = try Sandbox.short()
            (sandbox.limits.seconds, sandbox.preparationLimits.seconds) = (1, 20)
            let slow = try sandbox.run(["/bin/echo", "run"], after: ["/bin/sleep", "1.2"])
            #expect(
                slow.ending == .exited(0) && slow.isPrepared && slow.output == "run\n" && slow.seconds < 1.2)
            let failed = try sandbox.run(
                ["/bin/echo", "run"], after: ["/bin/sh", "-c", "echo no >&2; exit 4"])
            #expect(failed.ending == .exited(4) && !failed.isPrepared && failed.output == "")
            #expect(failed.errorOutput == "no\n")
            sandbox.limits.seconds = 0.3
            let slowAfter = try sandbox.run(["/bin/sleep", "5"], after: ["/bin/true"])
            #expect(slowAfter.ending == .timedOut && slowAfter.isPrepared)
            sandbox.preparationLimits.seconds = 0.3
            let slowBefore = try sandbox.run(["/bin/echo", "run"], after: ["/bin/sleep", "5"])
            #expect(slowBefore.ending == .timedOut && !slowBefore.isPrepared)
        }
    }
#endif
