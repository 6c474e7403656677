import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText
import MonetTraining
import TestSupport
import Testing

/// Several processes train as one does, bit for bit.
@Suite struct ProcessesTests {
    /// The order of a sum as text.
    private func order(_ items: [String]) -> String {
        var items = items
        SummationTree.reduce(items.count) { items[$0] = "(\(items[$0])+\(items[$1]))" }
        return items[0]
    }

    private final class Sum {
        var text: String
        init(_ text: String) { self.text = text }
    }

    @Test func sumsHaveOneOrder() {
        #expect(order(["a"]) == "a")
        #expect(order(["a", "b", "c"]) == "((a+b)+c)")
        #expect(order(["a", "b", "c", "d", "e", "f"]) == "(((a+b)+(c+d))+(e+f))")
        #expect(order(["a", "b", "c", "d", "e", "f", "g"]) == "(((a+b)+(c+d))+((e+f)+g))")
        for count in 1...24 {
            let whole = order((0..<count).map(String.init))
            var shared = 0
            for processes in 1...count where SummationTree.divides(count, among: processes) {
                shared += 1
                let parts = (0..<processes).map { rank -> String in
                    // What a process does: all but its last item join the running sum, the last one closes it.
                    let own = (count * rank / processes)..<(count * (rank + 1) / processes)
                    var sum = RunningTreeSum<Sum> { $0.text = "(\($0.text)+\($1.text))" }
                    for item in own.dropLast() { try? sum.append(Sum("\(item)")) }
                    return sum.sums.reversed().reduce("\(own.upperBound - 1)") { "(\($1.text)+\($0))" }
                }
                #expect(order(parts) == whole, "\(count) among \(processes)")
            }
            #expect(shared >= 2 || count == 1)
        }
        #expect(!SummationTree.divides(6, among: 2) && !SummationTree.divides(4, among: 3))
        #expect(SummationTree.divides(6, among: 3) && !SummationTree.divides(2, among: 4))
    }

    private func train(
        _ run: RunConfiguration, _ folder: String, processes: Int, threads: Int = 1, resuming: Bool = false,
        stopAfter: Int? = nil
    ) throws {
        let job = ThreadProcesses(count: processes)
        let outcomes = try job.run { communicator in
            let backend = CPUBackend(
                pool: WorkerPool(threadCount: threads, shareCount: run.shares), precision: run.precision)
            let trainer = try Trainer(
                run, directory: RunDirectory(path: folder), resuming: resuming, backend: backend,
                communicator: communicator)
            var steps = 0
            return try trainer.run(
                // One process is asked; all stop.
                shouldStop: {
                    steps += 1
                    return communicator.rank == communicator.count - 1 && steps == stopAfter
                }, report: { _ in })
        }
        #expect(outcomes.count == processes && Set(outcomes.map { "\($0)" }).count == 1)
    }

    private func files(_ folder: String) throws -> [Data] {
        try ["model.safetensors", "optimizer.safetensors", "trainer_state.json"].map {
            try Data(contentsOf: URL(fileURLWithPath: folder + "/latest/" + $0))
        }
    }

    @Test(arguments: [Family.vertical, .horizontal, .dense], [ComputePrecision.float32, .bfloat16])
    func anyNumberOfProcessesGivesTheSameParameters(family: Family, precision: ComputePrecision) throws {
        try withTemporaryFolder { folder in
            var run = try TrainerTests.settings(in: folder, feedForward: family)
            (run.accumulation, run.steps, run.precision, run.shares) = (4, 5, precision, 3)
            run.uniformityWeight = 0.1
            try train(run, folder + "/1", processes: 1)
            let expected = try files(folder + "/1")
            for (processes, threads) in [(1, 3), (2, 1), (2, 2), (4, 1)] {
                let name = folder + "/\(processes)-\(threads)"
                try train(run, name, processes: processes, threads: threads)
                #expect(try files(name) == expected, "\(processes) processes of \(threads) threads")
            }
        }
    }

    /// Documents of labels with experts of their own are shared out like any others.
    @Test(arguments: [Family.vertical, .horizontal])
    func reservedExpertsLearnTheSame(family: Family) throws {
        try withTemporaryFolder { folder in
            var run = try ReservedExpertsTests.settings(in: folder + "/corpus", family)
            (run.accumulation, run.steps) = (4, 5)
            try train(run, folder + "/1", processes: 1)
            let expected = try files(folder + "/1")
            for processes in [2, 4] {
                let name = folder + "/\(processes)"
                try train(run, name, processes: processes)
                #expect(try files(name) == expected, "\(processes) processes")
            }
            run.expertsOf = []
            try train(run, folder + "/unreserved", processes: 1)
            #expect(try files(folder + "/unreserved")[0] != expected[0])
        }
    }

    @Test func aRunGoesOnWithOtherProcesses() throws {
        try withTemporaryFolder { folder in
            var run = try TrainerTests.settings(in: folder)
            (run.accumulation, run.steps) = (4, 9)
            try train(run, folder + "/whole", processes: 1)
            try train(run, folder + "/parts", processes: 4, stopAfter: 3)
            try train(run, folder + "/parts", processes: 1, resuming: true, stopAfter: 2)
            try train(run, folder + "/parts", processes: 2, resuming: true)
            #expect(try files(folder + "/parts") == files(folder + "/whole"))
            let steps = try TextFile.read(folder + "/parts/metrics.jsonl").split(separator: "\n").compactMap {
                try JSONValue(parsing: String($0), source: "metrics")["loss"].map { _ in 1 }
            }
            #expect(steps.count == 9)
        }
    }

    @Test func roundedExchangeIsInexact() throws {
        try withTemporaryFolder { folder in
            var run = try TrainerTests.settings(in: folder)
            (run.accumulation, run.steps) = (4, 6)
            try train(run, folder + "/exact", processes: 2)
            run.gradientFormat = .bfloat16
            try train(run, folder + "/rounded", processes: 2)
            #expect(try files(folder + "/rounded")[0] != files(folder + "/exact")[0])
            let losses = try ["exact", "rounded"].map { name in
                try TextFile.read(folder + "/\(name)/metrics.jsonl").split(separator: "\n").compactMap {
                    try JSONValue(parsing: String($0), source: "metrics")["loss"]?.doubleValue
                }
            }
            #expect(losses[0].count == 6 && losses[1].count == 6)
            // Gradients rounded to 2⁻⁹ of their size: the losses of six steps of Adam stay close.
            for (a, b) in zip(losses[0], losses[1]) { #expect(abs(a - b) < 0.02, "\(a) \(b)") }
        }
    }

    @Test func unevenSharesAreRefused() throws {
        try withTemporaryFolder { folder in
            var run = try TrainerTests.settings(in: folder)
            run.accumulation = 6
            #expect(throws: TrainingError.self) { try train(run, folder + "/run", processes: 2) }
            #expect(!FileManager.default.fileExists(atPath: folder + "/run"))
            run.accumulation = 2
            #expect(throws: TrainingError.self) { try train(run, folder + "/run", processes: 4) }
        }
    }

    /// The gradient of several micro-batches is that of an objective whose uniformity loss is a mean over all of them.
    @Test(arguments: [UniformitySource.full, .selected])
    func uniformityIsThatOfTheWholeBatch(source: UniformitySource) throws {
        try withTemporaryFolder { folder in
            var run = try TrainerTests.settings(in: folder)
            run.accumulation = 3
            let stream = try BatchStream(
                corpus: Corpus(folder: run.corpus), length: 8, batchSize: 1, seed: 3)
            let backend = ReferenceBackend()
            let model = try scrambledModel(run.model, seed: 4).moved(to: backend)
            let objective = TrainingObjective(
                uniformity: source, uniformityWeight: 0.5, ambiguityWeight: 0.1, momentum: 0)
            func gradient() throws -> (losses: TrainingLosses, gradients: [Tensor?]) {
                let step = GradientStep(
                    model: model, parameters: model.parameters.trainable, objective: objective,
                    backend: backend)
                let result = try step(microBatches: 3) { stream.batch(from: $0) }
                return (result.losses, result.gradients)
            }
            let found = try gradient()
            var checked = 0
            for (index, parameter) in model.parameters.trainable.enumerated()
            where parameter.name.contains("router.w") {
                let values = parameter.tensor.floats()
                let own = try #require(found.gradients[index]).floats()
                for place in stride(from: 0, to: values.count, by: max(1, values.count / 7)) {
                    func total(_ change: Float) throws -> Double {
                        var changed = values
                        changed[place] += change
                        try parameter.tensor.write(changed)
                        defer { try? parameter.tensor.write(values) }
                        return try gradient().losses.total
                    }
                    let step: Float = 1e-3
                    let difference = (try total(step) - total(-step)) / Double(2 * step)
                    // Central differences of a smooth function in double precision; weights are float32.
                    #expect(
                        abs(difference - Double(own[place])) < 2e-4 + 0.01 * abs(difference),
                        "\(parameter.name) \(place): \(own[place]), \(difference)")
                    checked += 1
                }
            }
            #expect(checked > 10)
        }
    }

    /// In a step of micro-batches of 1 and 3 sequences, every token weighs the same in losses and in what the running
    /// statistics of routers move towards.
    @Test func tokensWeighTheSame() throws {
        try withTemporaryFolder { folder in
            let run = try TrainerTests.settings(in: folder)
            let corpus = try Corpus(folder: run.corpus)
            let batches = try [1, 3].map {
                try BatchStream(corpus: corpus, length: 8, batchSize: $0, seed: 3).batch(from: 1)
            }
            let backend = ReferenceBackend()
            func step(_ batches: [BatchStream.Batch]) throws -> (losses: TrainingLosses, means: [Double]) {
                let model = try scrambledModel(run.model, seed: 4).moved(to: backend)
                let step = GradientStep(
                    model: model, parameters: model.parameters.trainable,
                    objective: TrainingObjective(
                        uniformity: .full, uniformityWeight: 0.5, ambiguityWeight: 0.1, momentum: 0.5),
                    backend: backend)
                let losses = try step(microBatches: batches.count) { batches[$0] }.losses
                return (
                    losses,
                    model.parameters.all.filter { $0.name.hasSuffix("running_mean") }
                        .flatMap { $0.tensor.floats().map(Double.init) }
                )
            }
            let (together, first, second) = try (step(batches), step([batches[0]]), step([batches[1]]))
            let ambiguity = 0.25 * first.losses.ambiguity + 0.75 * second.losses.ambiguity
            #expect(abs(together.losses.ambiguity - ambiguity) < 1e-6 * ambiguity)
            let loss = 0.25 * first.losses.languageModel + 0.75 * second.losses.languageModel
            #expect(abs(together.losses.languageModel - loss) < 1e-6 * loss)
            #expect(!together.means.isEmpty && first.means != second.means)
            // Weights in float32.
            for (found, parts) in zip(together.means, zip(first.means, second.means)) {
                #expect(abs(found - (0.25 * parts.0 + 0.75 * parts.1)) < 1e-6, "\(found)")
            }
        }
    }

    @Test func launchersOfOneProcessNeedNoLibrary() {
        let many: [[String: String]] = [
            ["OMPI_COMM_WORLD_SIZE": "2"], ["PMIX_RANK": "0"], ["PMIX_RANK": "0", "SLURM_NTASKS": "4"],
            ["SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"],
        ]
        for environment in many { #expect(OpenMPI.isStarted(environment), "\(environment)") }
        let one: [[String: String]] = [
            [:], ["OMPI_COMM_WORLD_SIZE": "1"], ["PMIX_RANK": "0", "SLURM_NTASKS": "1"],
            ["SLURM_PROCID": "0"],
            // A shell of one task in an allocation for more.
            ["PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"], ["SLURM_NTASKS": "8"],
        ]
        for environment in one { #expect(!OpenMPI.isStarted(environment), "\(environment)") }
    }

    /// Slurm's own default joins nothing.
    @Test func tasksThatDoNotJoinAreRefused() throws {
        let environment = ["SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_MPI_TYPE": "none"]
        #expect(throws: ProcessError.notJoined(started: 2, starter: "srun")) {
            try OpenMPI.requireJoined(environment)
        }
        for key in ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE"] {
            try OpenMPI.requireJoined(environment.merging([key: "2"]) { $1 })
        }
        try OpenMPI.requireJoined(["SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"])
    }

    @Test func whoeverDoesNotAnswerIsNamed() throws {
        let job = ThreadProcesses(count: 3)
        #expect(throws: ProcessError.noAnswer(rank: 2, seconds: 0)) {
            _ = try job.run { communicator -> Int in
                guard communicator.rank != 2 else { return 0 }
                let transfer = try communicator.receive(
                    into: TransferBuffer(byteCount: 4), from: 2, tag: .values)
                try communicator.wait(for: [transfer], patience: 0.2)
                return 1
            }
        }
    }

    @Test func whatAllContributeComesInTheOrderOfRanks() throws {
        for count in 1...5 {
            let all = try ThreadProcesses(count: count).run { communicator in
                let numbers = try communicator.gather(
                    (0..<communicator.rank).map { Double($0) + 0.5 * Double(communicator.rank) })
                let data = try communicator.gather(
                    Data(repeating: UInt8(communicator.rank), count: 3 * communicator.rank))
                try communicator.barrier()
                return "\(numbers) \(data.map { Array($0) })"
            }
            let numbers = (0..<count).map { rank in (0..<rank).map { Double($0) + 0.5 * Double(rank) } }
            let data = (0..<count).map { [UInt8](repeating: UInt8($0), count: 3 * $0) }
            #expect(all == Array(repeating: "\(numbers) \(data)", count: count))
        }
    }
}
