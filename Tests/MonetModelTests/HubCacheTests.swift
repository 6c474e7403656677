import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Names of hub models in the caches of Hugging Face's tools.
@Suite struct HubCacheTests {
    /// The order of huggingface_hub, whose `constants.py` expands variables and then `~`.
    @Test func foldersByEnvironment() {
        for (environment, expected) in [
            (["HOME": "/h"], "/h/.cache/huggingface/hub"),
            (["HOME": "/h", "XDG_CACHE_HOME": "/x"], "/x/huggingface/hub"),
            (["HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"], "/h/hf/hub"),
            (["HOME": "/h", "HF_HOME": "$XDG/hf", "XDG": "/y"], "/y/hf/hub"),
            (["HOME": "/h", "HF_HOME": "${NO}/hf"], "${NO}/hf/hub"),
            (["HOME": "/h", "HF_HOME": "/a", "HUGGINGFACE_HUB_CACHE": "/old"], "/old"),
            (
                [
                    "HOME": "/h", "HF_HOME": "/a", "HF_HUB_CACHE": "${HOME}/c",
                    "HUGGINGFACE_HUB_CACHE": "/old",
                ], "/h/c"
            ),
            (["HOME": "/h", "HF_HOME": ""], "/h/.cache/huggingface/hub"),
        ] {
            #expect(HubCache(environment: environment).folder == expected)
        }
    }

    private func cache(
        snapshots: [String], refs: [String: String] = [:],
        _ body: (_ resolve: (String, String?) throws -> String) throws -> Void
    ) throws {
        try withTemporaryFolder { root in
            let model = root + "/models--org--name"
            for name in snapshots {
                try AtomicFile.createFolder(model + "/snapshots/" + name)
                for file in ["config.json", "model.safetensors"] {
                    try AtomicFile.write("{}", to: model + "/snapshots/" + name + "/" + file)
                }
            }
            try AtomicFile.createFolder(model + "/snapshots/ffff0000")
            try AtomicFile.write("{}", to: model + "/snapshots/ffff0000/config.json")
            for (name, commit) in refs {
                try AtomicFile.createFolder(
                    ((model + "/refs/" + name) as NSString).deletingLastPathComponent)
                try AtomicFile.write(commit, to: model + "/refs/" + name)
            }
            let cache = HubCache(environment: ["HF_HUB_CACHE": root])
            try body { name, revision in
                let path = try cache.resolve(name, revision: revision)
                return path.replacingOccurrences(of: model + "/snapshots/", with: "")
            }
        }
    }

    @Test func revisions() throws {
        let (a, b) = ("aaaa000011112222", "aaaa0000bbbbcccc")
        try cache(snapshots: [a, b], refs: ["main": a + "\n", "v1": b, "refs/pr/3": b]) {
            resolve throws -> Void in
            #expect(try resolve("org/name", nil) == a)
            #expect(try resolve("org/name", "main") == a && resolve("org/name", "v1") == b)
            #expect(try resolve("org/name", "refs/pr/3") == b)
            #expect(try resolve("org/name", b) == b && resolve("org/name", "aaaa0000bb") == b)
            for bad in ["v2", "aaaa0000", "", "../../x", "ffff0000"] {
                #expect(throws: FileError.self, "\(bad)") { try resolve("org/name", bad) }
            }
            for name in ["org/other", "../name", "name", "org/name/x"] {
                #expect(throws: FileError.self, "\(name)") { try resolve(name, nil) }
            }
        }
    }

    @Test func snapshotsWithoutAMainBranch() throws {
        try cache(snapshots: ["abc"]) { resolve throws -> Void in
            #expect(try resolve("org/name", nil) == "abc")
        }
        try cache(snapshots: ["abc", "def"]) { resolve throws -> Void in
            let error = #expect(throws: FileError.self) { try resolve("org/name", nil) }
            #expect("\(try #require(error))".contains("abc, def"))
        }
        // The weights are still missing.
        try cache(snapshots: ["abc"], refs: ["main": "ffff0000"]) { resolve throws -> Void in
            #expect(throws: FileError.self) { try resolve("org/name", nil) }
        }
    }

    @Test(arguments: ["../../../../etc", "/etc", "a/b", "", "..", "\u{1b}[2J"])
    func branchesThatLeadElsewhere(commit: String) throws {
        try cache(snapshots: ["abc"], refs: ["main": commit]) { resolve throws -> Void in
            let error = #expect(throws: FileError.self) { try resolve("org/name", nil) }
            #expect("\(try #require(error))".contains("refs/main"))
        }
    }
}
