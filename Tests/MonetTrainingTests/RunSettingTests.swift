import Foundation
import MonetFoundation
import MonetModel
import MonetTraining
import Testing

/// Settings that nobody chose suit the model and the number of steps.
@Suite struct RunSettingTests {
    private func fitted(_ preset: String, steps: Int, given: Set<String> = []) throws -> RunConfiguration {
        var run = RunConfiguration()
        run.model = try MonetConfiguration.preset(preset)
        run.corpus = "corpus"
        run.steps = steps
        run.fitDefaults(except: given)
        try run.validate(source: "test")
        return run
    }

    @Test func learningRatesFallWithTheWidth() throws {
        // 5e-4 · (2048 / d)^0.75 in two digits.
        #expect(try fitted("nano-vd", steps: 500).learningRate == 4e-3)
        #expect(abs(try fitted("tiny-vd", steps: 500).learningRate - 2.4e-3) < 1e-9)
        #expect(abs(try fitted("small-hd", steps: 500).learningRate - 1.4e-3) < 1e-9)
        #expect(abs(try fitted("850M-vd", steps: 500).learningRate - 6.2e-4) < 1e-9)
        #expect(abs(try fitted("1.4B-vd", steps: 500).learningRate - 5e-4) < 1e-9)
    }

    @Test func intervalsSuitTheNumberOfSteps() throws {
        for steps in [1, 3, 40, 1000, 100_000] {
            let run = try fitted("nano-vd", steps: steps)
            #expect(run.warmupSteps <= max(1, steps / 10) && run.warmupSteps <= 2000)
            #expect((1...10).contains(run.logEvery) && (1...1000).contains(run.evaluateEvery))
            #expect(run.evaluateEvery <= max(1, steps / 10) && run.saveEvery <= max(1, steps / 5))
            #expect(run.sequenceLength == 256)
        }
        #expect(try fitted("small-vd", steps: 10).sequenceLength == 512)
        #expect(try fitted("4.1B-vd", steps: 10).sequenceLength == 512)
    }

    /// Processes get parts of a step, which 1, 2 and 4 divide alike, and the step keeps its size as far as it can be
    /// divided.
    @Test(
        arguments: [
            (nil, nil, 8, 1), (1, nil, 2, 4), (2, nil, 2, 4), (4, nil, 2, 4), (3, nil, 1, 6),
            (16, nil, 1, 16),
            (1, 8, 2, 4), (4, 8, 2, 4), (3, 8, 8, 1), (2, 6, 3, 2), (1, 6, 6, 1), (3, 9, 3, 3), (2, 7, 7, 1),
        ] as [(Int?, Int?, Int, Int)])
    func processesShareAStep(processes: Int?, given: Int?, batch: Int, accumulation: Int) {
        var run = RunConfiguration()
        run.batchSize = given ?? run.batchSize
        let (sequences, whole) = (16 * run.batchSize, run.batchSize)
        run.fitDefaults(except: given == nil ? [] : ["batch_size"], processes: processes)
        #expect(run.batchSize == batch && run.accumulation == accumulation)
        // Of 16 batches by default.
        #expect(run.evaluationBatches * batch == sequences || run.evaluationBatches == 16 && batch == whole)
        run = RunConfiguration()
        run.accumulation = 6
        run.fitDefaults(except: ["accumulation"], processes: processes)
        #expect(run.batchSize == 8 && run.accumulation == 6)
    }

    @Test func datesAreWrittenAndRead() throws {
        var run = RunConfiguration()
        try run.set("template_date", to: "2026-11-30T06:29:18Z", source: "test")
        #expect(run.templateDate == Date(timeIntervalSince1970: 1_796_020_158))
        #expect(run.json()["template_date"]?.stringValue == "2026-11-30T06:29:18Z")
        try run.set("template_date", to: .null, source: "test")
        #expect(run.templateDate == nil)
        for bad in ["yesterday", 3] as [JSONValue] {
            #expect(throws: TrainingError.self) { try run.set("template_date", to: bad, source: "test") }
        }
    }

    @Test func whatIsGivenStays() throws {
        var run = RunConfiguration()
        run.model = try MonetConfiguration.preset("nano-vd")
        (run.warmupSteps, run.learningRate, run.saveEvery) = (7, 1e-3, 11)
        run.fitDefaults(except: ["warmup_steps", "learning_rate", "save_every"])
        #expect(run.warmupSteps == 7 && run.learningRate == 1e-3 && run.saveEvery == 11)
    }
}
