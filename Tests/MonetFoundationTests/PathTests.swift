import MonetFoundation
import Testing

@Suite struct PathTests {
    @Test(arguments: [
        ("m", "m", "."), ("a/m", "m", "a"), ("/m", "m", "/"), ("/a/bc/", "bc", "/a"), ("/", "/", "/"),
        (".", ".", "."), ("..", "..", "."), ("a//b", "b", "a/"), ("", "", "."), ("日/本", "本", "日"),
    ])
    func partsOfAPath(path: String, name: String, folder: String) {
        #expect(path.lastPathName == name && path.parentFolder == folder)
    }

    @Test(arguments: [
        ("a.txt", "txt", "a"), ("x", "", "x"), (".hidden", "", ".hidden"), ("a/b.tar.gz", "gz", "b.tar"),
        ("a.b/c", "", "c"), ("c.", "", "c."),
    ])
    func endings(path: String, ending: String, rest: String) {
        #expect(path.fileExtension == ending && path.nameWithoutExtension == rest)
    }
}
