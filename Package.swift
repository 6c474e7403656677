// swift-tools-version: 6.0
import PackageDescription

// Every module that a target imports, or whose types lie inside types that it uses, stands among its
// dependencies: only then is the target compiled again when the layout of such a type changes.
let runtime: [Target.Dependency] = ["MonetFoundation", "MonetCompute", "MonetText", "MonetModel"]
let library: [Target.Dependency] =
    runtime + ["MonetProcesses", "MonetGeneration", "MonetTraining", "MonetInsight", "MonetEvaluation"]

let package = Package(
    name: "Monet",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Monet", targets: ["Monet"]),
        .library(name: "MonetFoundation", targets: ["MonetFoundation"]),
        .library(name: "MonetCompute", targets: ["MonetCompute"]),
        .library(name: "MonetText", targets: ["MonetText"]),
        .library(name: "MonetModel", targets: ["MonetModel"]),
        .library(name: "MonetGeneration", targets: ["MonetGeneration"]),
        .library(name: "MonetProcesses", targets: ["MonetProcesses"]),
        .library(name: "MonetTraining", targets: ["MonetTraining"]),
        .library(name: "MonetInsight", targets: ["MonetInsight"]),
        .library(name: "MonetEvaluation", targets: ["MonetEvaluation"]),
        .library(name: "MonetServer", targets: ["MonetServer"]),
        .library(name: "MonetHub", targets: ["MonetHub"]),
        .executable(name: "monet", targets: ["MonetCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.0"),
    ],
    targets: [
        .target(
            name: "CMonetKernels",
            exclude: [
                "kernels.inc", "gathered.inc", "vectors.inc", "weights.inc", "int4.inc", "int8.inc",
                "integers.inc", "even_odd.inc",
                "bfloat16.inc",
            ]),
        .target(
            name: "COneDNN",
            linkerSettings: [.linkedLibrary("dnnl", .when(platforms: [.linux]))]),
        .target(
            name: "CSentencePiece",
            linkerSettings: [
                .linkedLibrary("sentencepiece"), .linkedLibrary("sentencepiece_train"),
            ]),
        .target(name: "CGzip", linkerSettings: [.linkedLibrary("z")]),
        .target(name: "MonetFoundation", dependencies: ["CGzip"]),
        .target(name: "MonetCompute", dependencies: ["CMonetKernels", "COneDNN", "MonetFoundation"]),
        .target(name: "MonetText", dependencies: ["CSentencePiece", "MonetFoundation"]),
        .target(
            name: "MonetModel", dependencies: ["MonetCompute", "MonetFoundation"],
            resources: [.embedInCode("Resources/modeling_monet.py")]),
        .target(name: "MonetGeneration", dependencies: runtime),
        // Open MPI is loaded when a job has several processes; nothing is linked to it.
        .target(name: "CMPI", linkerSettings: [.linkedLibrary("dl", .when(platforms: [.linux]))]),
        .target(name: "MonetProcesses", dependencies: ["CMPI", "MonetFoundation"]),
        .target(name: "MonetTraining", dependencies: runtime + ["MonetProcesses"]),
        .target(
            name: "MonetInsight",
            dependencies: runtime + [
                "CGzip", "MonetGeneration", "MonetProcesses", .product(name: "GRDB", package: "GRDB.swift"),
            ]),
        .target(
            name: "MonetEvaluation",
            dependencies: runtime + [
                "CGzip", "MonetGeneration", "MonetInsight", "MonetProcesses",
                .product(name: "Yams", package: "Yams"),
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            resources: [
                .embedInCode("Resources/toxicity-words.json"), .embedInCode("Resources/tasks.yaml"),
            ]),
        .target(
            name: "MonetHub",
            dependencies: runtime + [.product(name: "Crypto", package: "swift-crypto")]),
        // The only module that needs SwiftNIO: programs that import the others do not build it.
        .target(
            name: "MonetServer",
            dependencies: runtime + [
                "MonetGeneration", "MonetInsight", "MonetEvaluation",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "Logging", package: "swift-log"),
            ],
            resources: [
                "index.html", "explorer.css", "address.js", "api.js", "basket.js", "dom.js", "dossier.js",
                "edit.js", "experts.js", "graph-data.js", "graph-drawing.js", "graph-panel.js", "graph.js",
                "main.js", "results.js", "save.js", "write.js",
            ].map { .embedInCode("Resources/\($0)") }),
        // The command line's module has another name than its product: file systems that ignore case would
        // take `monet` for the library `Monet`.
        .target(name: "Monet", dependencies: library),
        .executableTarget(
            name: "MonetCommand",
            dependencies: library + [
                "MonetHub", "MonetServer",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Yams", package: "Yams"),
            ]),
        .executableTarget(
            name: "ContinueText", dependencies: runtime + ["MonetGeneration"], path: "Examples/ContinueText"),
        .executableTarget(
            name: "ExpertsOfAWord", dependencies: runtime + ["MonetGeneration", "MonetInsight"],
            path: "Examples/ExpertsOfAWord"),
        .executableTarget(
            name: "ProbeHiddenValues", dependencies: runtime + ["MonetGeneration", "MonetInsight"],
            path: "Examples/ProbeHiddenValues"),
        .executableTarget(
            name: "SteerWhileGenerating", dependencies: runtime + ["MonetGeneration", "MonetInsight"],
            path: "Examples/SteerWhileGenerating"),
        .executableTarget(
            name: "PromptsUnderMasks", dependencies: runtime + ["MonetGeneration", "MonetInsight"],
            path: "Examples/PromptsUnderMasks"),
        .executableTarget(
            name: "ActivationsOfAnExpert", dependencies: runtime + ["MonetGeneration", "MonetInsight"],
            path: "Examples/ActivationsOfAnExpert"),
        .target(
            name: "TestSupport", dependencies: runtime + ["MonetProcesses"], path: "Tests/TestSupport"),
        .target(
            name: "EmulatedKernels", dependencies: ["CMonetKernels"], path: "Tests/EmulatedKernels"),
        .testTarget(
            name: "MonetTests",
            dependencies: library + [
                "Monet", "MonetHub", "MonetServer", .product(name: "Logging", package: "swift-log"),
            ]),
        .testTarget(name: "MonetFoundationTests", dependencies: ["MonetFoundation", "TestSupport"]),
        .testTarget(
            name: "MonetComputeTests",
            dependencies: runtime + ["CMonetKernels", "EmulatedKernels", "TestSupport"]),
        .testTarget(
            name: "MonetModelTests",
            dependencies: runtime + ["CMonetKernels", "EmulatedKernels", "TestSupport"]),
        .testTarget(name: "MonetTextTests", dependencies: runtime + ["TestSupport"]),
        .testTarget(
            name: "MonetTrainingTests",
            dependencies: runtime + ["MonetProcesses", "MonetTraining", "TestSupport"]),
        .testTarget(name: "MonetGenerationTests", dependencies: library + ["TestSupport"]),
        .testTarget(
            name: "MonetInsightTests",
            dependencies: library + ["TestSupport", .product(name: "GRDB", package: "GRDB.swift")]),
        .testTarget(name: "MonetEvaluationTests", dependencies: library + ["TestSupport"]),
        .testTarget(
            name: "MonetServerTests",
            dependencies: runtime + [
                "MonetGeneration", "MonetInsight", "MonetEvaluation", "MonetServer", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
            ]),
        .testTarget(
            name: "MonetHubTests",
            dependencies: runtime + [
                "MonetHub", "TestSupport", .product(name: "Crypto", package: "swift-crypto"),
            ]),
        .testTarget(name: "MonetCommandTests", dependencies: library + ["MonetCommand", "TestSupport"]),
    ],
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx17
)
