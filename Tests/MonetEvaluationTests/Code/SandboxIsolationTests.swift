#if os(Linux)
    import Foundation
    import MonetEvaluation
    import Testing

    /// What programs see and reach of this machine.
    @Suite(
        .enabled(
            if: Installed.canRunPython, "bubblewrap and python3 are not both installed and permitted here"))
    struct SandboxIsolationTests {
        @Test func secretsAreNotSeen() throws {
            try withFolder { folder in
                let secret = "secret-" + UUID().uuidString
                let file = folder + "/secret"
                try secret.write(toFile: file, atomically: true, encoding: .utf8)
                // A descriptor that another library left open for children.
                let leaked = open(file, O_RDONLY)
                defer { close(leaked) }
                // Where this process runs may be a folder that programs are meant to see.
                let own = [FileManager.default.currentDirectoryPath, NSHomeDirectory()].filter {
                    !["/", "/tmp"].contains($0) && !$0.hasPrefix("/usr")
                }
                let run = try Sandbox.short().attack(
                    """
                    import glob
                    paths = sys.argv[2:] + ["/etc/shadow", "/etc/passwd", "/root", "/home", "/var", "/sys", "/run", "/boot"]
                    print([path for path in paths if os.path.exists(path)])
                    print(sorted(os.environ))
                    print(os.listdir("."), os.listdir("/tmp"), os.listdir("/dev/shm"))
                    print(sorted(os.listdir("/proc/self/fd"), key=int)[:-1])
                    # Its shell's and its own.
                    environments = glob.glob("/proc/[0-9]*/environ")
                    variables = "\\0".join(open(path, errors="replace").read() for path in environments).split("\\0")
                    print(len(environments), sorted(set(variable.split("=")[0] for variable in variables if variable)))
                    for number in range(256):
                        try: print(number, os.pread(number, 100, 0))
                        except OSError: pass
                    """,
                    [file, folder] + own)
                #expect(
                    run.output == """
                        []
                        ['HOME', 'LANG', 'MARK', 'PATH', 'PWD', 'TMPDIR']
                        ['attack.py'] ['work'] []
                        ['0', '1', '2']
                        2 ['HOME', 'LANG', 'MARK', 'PATH', 'PWD', 'TMPDIR']
                        0 b''

                        """, "\(run)")
            }
        }

        @Test func rightsAreNone() throws {
            let run = try Sandbox.short().attack(
                #"""
                status = open("/proc/self/status").read()
                print(set(line.split()[1] for line in status.splitlines() if line.startswith("Cap")))
                print([line.split()[1] for line in status.splitlines() if line.startswith(("NoNewPrivs", "Seccomp:"))])
                print(os.getuid(), os.getgid(), socket.gethostname(), os.getpid() < 100, os.getsid(0) < 100)
                import ctypes
                library = ctypes.CDLL(None, use_errno=True)
                for flag in (0x10000000, 0x00020000, 0x40000000):
                    print(library.unshare(flag), end=" ")
                print(library.mount(b"none", b"/tmp", b"tmpfs", 0, None), library.setuid(0), library.chroot(b"/tmp"))
                try: open("/dev/tty")
                except OSError as error: print(errno.errorcode[error.errno])
                """#)
            #expect(
                run.output == """
                    {'0000000000000000'}
                    ['1', '2']
                    1000 1000 sandbox True True
                    -1 -1 -1 -1 -1 -1
                    ENXIO

                    """, "\(run)")
        }

        @Test func networksAreNotReached() throws {
            let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(listener) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            try withUnsafeMutablePointer(to: &address) { pointer in
                try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    try #require(bind(listener, $0, length) == 0 && listen(listener, 4) == 0)
                    try #require(getsockname(listener, $0, &length) == 0)
                }
            }
            _ = fcntl(listener, F_SETFL, O_NONBLOCK)
            let port = UInt16(bigEndian: address.sin_port)
            let program = """
                for address in (("127.0.0.1", int(sys.argv[2])), ("1.1.1.1", 80), ("10.0.0.1", 80)):
                    connection = socket.socket()
                    connection.settimeout(0.5)
                    try:
                        connection.connect(address)
                        print("reached")
                    except OSError as error: print(errno.errorcode.get(error.errno))
                try: socket.getaddrinfo("example.com", 80)
                except OSError: print("no names")
                for family in (40, 38, 17):
                    try: socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_STREAM)
                    except OSError as error: print(errno.errorcode[error.errno])
                """
            let run = try Sandbox.short().attack(program, ["\(port)"])
            #expect(
                run.output == """
                    ECONNREFUSED
                    ENETUNREACH
                    ENETUNREACH
                    no names
                    EAFNOSUPPORT
                    EAFNOSUPPORT
                    EAFNOSUPPORT

                    """, "\(run)")
            #expect(accept(listener, nil, nil) == -1 && errno == EAGAIN)
            // The listener is reached by a program that is not isolated.
            var unsafe = try Sandbox.short(.unsafe)
            unsafe.limits.processes = 128
            let connection = "socket.create_connection(('127.0.0.1', int(sys.argv[2])))\nprint('reached')"
            #expect(try unsafe.attack(connection, ["\(port)"]).output == "reached\n")
            let reached = accept(listener, nil, nil)
            #expect(reached >= 0)
            close(reached)
        }

        @Test func filesOutsideAreNotWritten() throws {
            let mark = Mark()
            let run = try Sandbox.short().attack(
                """
                for folder in ("/", "/usr", "/usr/bin", "/usr/local", "/etc", "/etc/alternatives", "/dev", "/proc", "/var",
                               "/root", "/home", "/tmp", "/tmp/work", "/dev/shm", "/var/tmp", "/proc/1", "/lib", "/bin"):
                    try:
                        open(os.path.join(folder, sys.argv[1]), "w").write("x")
                        print(folder)
                    except OSError: pass
                for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/usr/bin/python3", "/etc/ld.so.cache"):
                    try:
                        open(path, "r+").write("x")
                        print(path)
                    except OSError: pass
                try:
                    os.remove("/usr/bin/env")
                    print("removed")
                except OSError: pass
                os.symlink("/usr/bin", "link")
                try:
                    open("link/" + sys.argv[1], "w")
                    print("linked")
                except OSError: pass
                """, mark: mark)
            // Its own folders, which are in memory.
            #expect(run.output == "/tmp\n/tmp/work\n/dev/shm\n", "\(run)")
            let second = try Sandbox.short().attack("print(os.listdir('/tmp'), os.listdir('.'))")
            #expect(second.output == "['work'] ['attack.py']\n")
        }

        @Test func namesOfFilesAreNamesOnly() throws {
            for name in ["", ".", "..", "../x", "/etc/x", "a/b", "a\0b", String(repeating: "x", count: 300)] {
                for isolation in [try #require(Installed.isolation), .unsafe] {
                    #expect(throws: SandboxError.invalidFileName(name)) {
                        try Sandbox(isolation: isolation).run(["/bin/true"], files: [(name, "")])
                    }
                }
            }
            let names = ["-rf", "a b", "$(touch x)", "'", "ünï", "--"]
            let run = try Sandbox.short().run(["/bin/ls", "-N"], files: names.map { ($0, $0) })
            #expect(Set(run.output.split(separator: "\n").map(String.init)) == Set(names), "\(run)")
        }

        @Test func extraPathsAreReadOnly() throws {
            try withFolder { folder in
                try "data".write(toFile: folder + "/file", atomically: true, encoding: .utf8)
                let run = try Sandbox.short().run(
                    ["/bin/sh", "-c", "cat \(folder)/file; echo x > \(folder)/file; ls \(folder)"],
                    extraReadOnlyPaths: [folder])
                #expect(run.output == "datafile\n", "\(run)")
                #expect(try String(contentsOfFile: folder + "/file", encoding: .utf8) == "data")
                #expect(throws: SandboxError.self) {
                    try Sandbox.short().run(["/bin/true"], extraReadOnlyPaths: [folder + "/missing"])
                }
            }
        }
    }
#endif
