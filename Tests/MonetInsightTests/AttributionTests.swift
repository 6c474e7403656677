import Foundation
import MonetCompute
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// Attribution against the linearized model in double precision, whose contributions are carried forwards, where the
/// code propagates gradients backwards.
///
/// Float32 sums of a few hundred terms leave errors of about 1e-6 of their scale; 1e-4 of the largest contribution is the
/// bound everywhere.
@Suite struct AttributionTests {
    private let ids: [Int32] = [3, 41, 7, 7, 60, 12, 0]

    private func model(_ family: Family, hasBiases: Bool = false, keyValueHeads: Int = 3) throws
        -> MonetLanguageModel
    {
        var configuration = smallConfiguration(family)
        configuration.attentionBias = hasBiases
        configuration.keyValueHeads = keyValueHeads
        return try scrambledModel(configuration, seed: 29)
    }

    private func mask(_ model: MonetLanguageModel) -> (mask: UnitMask, strengths: [Int: [Int: Double]]) {
        var mask = UnitMask.random(share: 0.1, of: model.units, seed: 4)
        mask.set((0..<20).map { (index: $0, strength: 1.5) }, group: 0)
        var strengths: [Int: [Int: Double]] = [:]
        for group in mask.groups {
            for entry in mask.entries(group: group) {
                strengths[group, default: [:]][entry.index] = Double(entry.strength)
            }
        }
        return (mask, strengths)
    }

    @Test(arguments: Family.allCases, [false, true])
    func embeddingsAndBiasesSumToTheLogit(family: Family, isSpecial: Bool) throws {
        let model = try model(family, hasBiases: isSpecial, keyValueHeads: isSpecial ? 1 : 3)
        let edit = isSpecial ? mask(model) : (UnitMask(model.units), [:])
        for count in [1, ids.count] {
            let ids = Array(ids.prefix(count))
            let pass = try LinearizedPass(
                ids, target: AttributionTarget(token: 13), model: model, mask: edit.0)
            let reference = LinearizedReference(model, ids, strengths: edit.1)
            let logit = reference.logit(13, reference.pre[model.configuration.layerCount])
            #expect(abs(pass.value - logit) <= 1e-4 * max(1, abs(logit)))
            #expect(abs(pass.total - logit) <= 1e-4 * max(1, abs(logit)))
            let embeddings = ids.indices.map { position in
                let row = (0..<model.configuration.hiddenSize).map { reference.pre[0][position, $0] }
                return reference.logit(13, reference.carried(reference.row(row, at: position), from: 0))
            }
            #expect(relativeError(pass.embeddings, embeddings) < 1e-4)
            let biases = (0..<model.configuration.layerCount).map { layer in
                let zero = Reference(zeros: [ids.count, model.configuration.hiddenSize])
                let attention = reference.attention(layer, zero, hasBiases: true)
                // The block's own biases, and its answer to those of attention.
                let own = reference.block(layer, attention, hasBiases: true)
                let sum = Reference(zip(attention.values, own.values).map(+), shape: zero.shape)
                return reference.logit(13, reference.carried(sum, from: layer + 1))
            }
            #expect(relativeError(pass.biases, biases) < 1e-4)
        }
    }

    /// Every edge is what its source adds to the stream, carried through attention alone to what its target reads, and
    /// from there through all paths to the logit.
    @Test(arguments: Family.allCases, [false, true])
    func edgesAreDirectEffects(family: Family, isSpecial: Bool) throws {
        let model = try model(family, hasBiases: isSpecial, keyValueHeads: isSpecial ? 1 : 3)
        let edit = isSpecial ? mask(model) : (UnitMask(model.units), [:])
        let pass = try LinearizedPass(ids, target: AttributionTarget(token: 13), model: model, mask: edit.0)
        let graph = try AttributionGraph(pass, unitCount: 12)
        let reference = LinearizedReference(model, ids, strengths: edit.1)
        let top = model.configuration.layerCount
        let width = model.configuration.hiddenSize
        func written(_ node: AttributionGraph.Node) -> [Double]? {
            switch node.kind {
            case .embedding: return (0..<width).map { reference.pre[0][node.position, $0] }
            case .unit(let unit):
                return reference.term(
                    node.layer, node.position, unit, reference.mid[node.layer], hasBiases: true)
            default: return nil
            }
        }
        let scale = graph.nodes.map { abs($0.contribution) }.max() ?? 0
        var compared = 0
        for edge in graph.edges {
            let (source, target) = (graph.nodes[edge.source], graph.nodes[edge.target])
            guard let output = written(source) else { continue }
            let start = reference.row(output, at: source.position)
            let expected: Double
            switch target.kind {
            case .target:
                expected = reference.logit(
                    13, reference.carried(start, from: source.layer + 1, hasBlocks: false))
            case .unit(let unit):
                let read = reference.read(start, from: source.layer + 1, by: target.layer)
                let effect = reference.term(target.layer, target.position, unit, read, hasBiases: false)
                expected = reference.logit(
                    13, reference.carried(reference.row(effect, at: target.position), from: target.layer + 1))
            default: continue
            }
            #expect(
                abs(edge.weight - expected) <= 1e-4 * scale,
                "\(source) → \(target): \(edge.weight) \(expected)")
            compared += 1
        }
        #expect(compared > 40)
        for node in graph.nodes {
            guard let output = written(node) else { continue }
            let carried = reference.carried(reference.row(output, at: node.position), from: node.layer + 1)
            #expect(abs(node.contribution - reference.logit(13, carried)) <= 1e-4 * scale)
        }
        #expect(graph.nodes.allSatisfy { $0.layer <= top })
    }

    /// With paths opened, contributions of embeddings are derivatives of the model that holds all the rest, by central
    /// differences in double precision.
    @Test(arguments: Family.allCases, [[OpenedPath.patterns], [.routing], [.patterns, .routing]])
    func openedPathsAreDerivatives(family: Family, opening: [OpenedPath]) throws {
        let model = try model(family, hasBiases: true, keyValueHeads: 1)
        let edit = mask(model)
        let pass = try LinearizedPass(
            ids, target: AttributionTarget(token: 13), model: model, mask: edit.mask, opening: Set(opening))
        let reference = LinearizedReference(model, ids, strengths: edit.strengths)
        func logit(_ position: Int, _ factor: Double) -> Double {
            var x = reference.pre[0]
            for column in 0..<model.configuration.hiddenSize { x[position, column] *= factor }
            return reference.logit(
                13, from: x, patterns: opening.contains(.patterns), routing: opening.contains(.routing))
        }
        let step = 1e-5
        let expected = ids.indices.map { (logit($0, 1 + step) - logit($0, 1 - step)) / (2 * step) }
        #expect(relativeError(pass.embeddings, expected) < 1e-4)
        let closed = try LinearizedPass(
            ids, target: AttributionTarget(token: 13), model: model, mask: edit.mask)
        let changes = family != .dense || opening.contains(.patterns)
        #expect((relativeError(pass.embeddings, closed.embeddings) > 1e-4) == changes)
        // The graph holds the same sums: what enters the target is the logit and what the opened paths carry.
        let graph = try AttributionGraph(pass, unitCount: 12)
        #expect(graph.imbalance < 1e-4)
        let opened = graph.nodes.filter { if case .opened = $0.kind { true } else { false } }
        let layers = opening.reduce(0) {
            $0 + ($1 == .patterns ? 3 : family == .dense ? 0 : model.units.groups)
        }
        #expect(opened.count == layers * ids.count)
        let sum = opened.reduce(0) { $0 + $1.contribution }
        #expect(abs((graph.nodes.last?.contribution ?? .nan) - graph.value - sum) < 1e-3)
        let scores = graph.scores(within: graph)
        #expect(abs(scores.replacement - 1) < 1e-6 && abs(scores.completeness - 1) < 1e-6)
        let json = graph.json(
            .init(
                slug: "x", model: "x", prompt: "x", target: "x", probability: nil, unitCount: 12,
                nodeShare: 1,
                edgeShare: 1), names: ids.map(String.init))
        let names = json["nodes"]?.arrayValue?.compactMap { $0["node_id"]?.stringValue } ?? []
        #expect(Set(names).count == graph.nodes.count)
    }

    /// What enters a node leaves it, whatever the number of nodes, and nothing is error.
    @Test(arguments: Family.allCases, [1, 10, 100_000])
    func flowIsConserved(family: Family, unitCount: Int) throws {
        let model = try model(family, hasBiases: true)
        let metric = AttributionTarget([.init(token: 5, weight: 1), .init(token: 9, weight: -0.5)])
        let pass = try LinearizedPass(ids, target: metric, model: model)
        let graph = try AttributionGraph(pass, unitCount: unitCount)
        var incoming = [Double](repeating: 0, count: graph.nodes.count)
        var outgoing = incoming
        for edge in graph.edges {
            #expect(edge.source < edge.target)
            incoming[edge.target] += edge.weight
            outgoing[edge.source] += edge.weight
        }
        let scale = graph.nodes.map { abs($0.contribution) }.max() ?? 0
        for (index, node) in graph.nodes.enumerated() {
            if index < graph.nodes.count - 1 {
                #expect(abs(outgoing[index] - node.contribution) < 1e-4 * scale)
            }
            switch node.kind {
            case .unit, .others, .opened, .target:
                #expect(abs(incoming[index] - node.contribution) < 1e-4 * scale)
            case .embedding, .bias: #expect(incoming[index] == 0)
            }
        }
        #expect(graph.imbalance < 1e-4)
        let scores = graph.scores(within: graph)
        #expect(abs(scores.replacement - 1) < 1e-9 && abs(scores.completeness - 1) < 1e-9)
        if unitCount == 100_000 {
            let units = graph.nodes.count { if case .unit = $0.kind { true } else { false } }
            var all = 0
            try pass.visitContributions { _, _, _, contribution in all += contribution != 0 ? 1 : 0 }
            #expect(units == all)
        }
    }

    /// Influence by the definition: the normalized absolute matrix A, and the row of the target in A + A² + ….
    @Test func influenceIsTheNeumannSeries() throws {
        let pass = try LinearizedPass(ids, target: AttributionTarget(token: 13), model: model(.vertical))
        let graph = try AttributionGraph(pass, unitCount: 20)
        let count = graph.nodes.count
        var matrix = Reference(zeros: [count, count])
        for edge in graph.edges { matrix[edge.target, edge.source] = abs(edge.weight) }
        for row in 0..<count {
            let sum = (0..<count).reduce(0.0) { $0 + matrix[row, $1] }
            if sum > 0 { for column in 0..<count { matrix[row, column] /= sum } }
        }
        var power = (0..<count).map { matrix[count - 1, $0] }
        var influence = power
        for _ in 0..<count where power.contains(where: { $0 != 0 }) {
            power = (0..<count).map { column in
                (0..<count).reduce(0.0) { $0 + power[$1] * matrix[$1, column] }
            }
            influence = zip(influence, power).map(+)
        }
        influence[count - 1] = 1
        #expect(relativeError(graph.nodes.map(\.influence), influence) < 1e-9)

        let pruned = graph.pruned(nodeShare: 0.6, edgeShare: 0.9)
        #expect(pruned.nodes.count < graph.nodes.count && pruned.edges.count < graph.edges.count)
        let scores = pruned.scores(within: graph)
        #expect(scores.replacement > 0 && scores.replacement < 1 && scores.completeness < 1)
        let inner = pruned.nodes.indices.filter { pruned.nodes[$0].kind != .target }
        for index in inner where pruned.nodes[index].kind != .embedding {
            #expect(pruned.edges.contains { $0.source == index }, "a node that leads nowhere")
        }
        let everything = graph.pruned(nodeShare: 1, edgeShare: 1)
        #expect(everything.scores(within: graph).replacement > 1 - 1e-9)
    }

    /// Removing a unit of the last layer at the last position, in a group of its own, is what a mask does: the true model in
    /// double precision tells the change.
    @Test(arguments: Family.allCases)
    func interventionsChangeTheTrueModel(family: Family) throws {
        let model = try model(family, hasBiases: true)
        let pass = try LinearizedPass(ids, target: AttributionTarget(token: 13), model: model)
        let graph = try AttributionGraph(pass, unitCount: 200)
        let validation = try AttributionValidation(graph, pass, count: 200, batch: 7)
        let reference = ReferenceModel(model)
        let row = ids.count - 1
        let before = reference([ids]).logits[row, 13]
        let layer = model.configuration.layerCount - 1
        let group = graph.group(ofLayer: layer)
        var compared = 0
        for held in AttributionValidation.Held.allCases where held != .norms {
            for change in validation.nodes[held] ?? [] {
                let node = graph.nodes[change.source]
                #expect(change.predicted == -node.contribution)
                guard node.layer == layer, node.position == row, case .unit(let unit) = node.kind else {
                    continue
                }
                let after = reference([ids], strengths: [group: [unit: 0]]).logits[row, 13]
                #expect(abs(change.measured - (after - before)) < 1e-4)
                // It has one edge, to the target: cutting it is removing the unit.
                for edge in validation.edges where edge.source == change.source {
                    #expect(abs(edge.measured - (after - before)) < 1e-4)
                    #expect(edge.target == graph.nodes.count - 1)
                }
                compared += 1
            }
        }
        #expect(compared > 8)
        #expect((0...10).contains(validation.share(of: .patterns)))
        if family == .dense { #expect(validation.share(of: .routing) == 0) }
        // With the norms held too, what the last layer writes reaches the target as predicted.
        for change in validation.nodes[.norms] ?? [] where graph.nodes[change.source].layer == layer {
            #expect(abs(change.measured - change.predicted) < 1e-4)
        }
        #expect(throws: CancellationError.self) {
            try AttributionValidation(graph, pass, count: 2) { _ in false }
        }
    }

    /// The fields that circuit-tracer's page and Neuronpedia's viewer read.
    @Test func graphFilesHaveWhatViewersRead() throws {
        let pass = try LinearizedPass(
            ids, target: AttributionTarget(token: 13), model: model(.vertical, hasBiases: true))
        let graph = try AttributionGraph(pass, unitCount: 20).pruned(nodeShare: 0.9)
        let description = AttributionGraph.Description(
            slug: "test", model: "small", prompt: "a prompt", target: " the", probability: 0.25,
            unitCount: 20,
            nodeShare: 0.9, edgeShare: 0.98)
        let json = graph.json(description, names: ids.map { "<\($0)>" })
        let nodes = try #require(json["nodes"]?.arrayValue)
        let ids = nodes.compactMap { $0["node_id"]?.stringValue }
        #expect(Set(ids).count == nodes.count)
        #expect(Set(nodes.compactMap { $0["jsNodeId"]?.stringValue }).count <= nodes.count)
        for link in try #require(json["links"]?.arrayValue) {
            #expect(
                ids.contains(link["source"]?.stringValue ?? "")
                    && ids.contains(link["target"]?.stringValue ?? ""))
            #expect(link["weight"]?.doubleValue?.isFinite == true)
        }
        let types: Set = ["cross layer transcoder", "embedding", "logit", "bias"]
        for (node, entry) in zip(graph.nodes, nodes) {
            for key in [
                "feature", "layer", "ctx_idx", "feature_type", "clerp", "influence", "is_target_logit",
            ] {
                #expect(entry[key] != nil, "\(key)")
            }
            let parts = (entry["node_id"]?.stringValue ?? "").split(separator: "_")
            #expect(parts.count == 3 && Int(parts[1]) != nil && parts[2] == "\(node.position)")
            #expect(entry["layer"]?.stringValue == String(parts[0]))
            #expect(types.contains(entry["feature_type"]?.stringValue ?? ""))
            #expect((0...1.000001).contains(entry["influence"]?.doubleValue ?? -1))
        }
        let logit = try #require(nodes.last)
        #expect(
            logit["clerp"]?.stringValue?.hasSuffix("(p=0.250)") == true, "pages read the probability here")
        #expect(logit["is_target_logit"] == true && logit["token_prob"]?.doubleValue == 0.25)
        // The strongest node comes first below any threshold.
        let strongest = graph.nodes.indices.dropLast().max {
            graph.nodes[$0].influence < graph.nodes[$1].influence
        }
        let smallest = nodes.dropLast().compactMap { $0["influence"]?.doubleValue }.min()
        #expect(nodes[strongest ?? 0]["influence"]?.doubleValue == smallest)
        #expect(json["metadata"]?["prompt_tokens"]?.arrayValue?.count == self.ids.count)
    }

    @Test func badInput() throws {
        let model = try model(.vertical)
        let target = AttributionTarget(token: 13)
        #expect(throws: ModelError.self) { try LinearizedPass([], target: target, model: model) }
        #expect(throws: (any Error).self) { try LinearizedPass([1, 99], target: target, model: model) }
        #expect(throws: ModelError.self) {
            try LinearizedPass([1], target: AttributionTarget(token: 67), model: model)
        }
        #expect(throws: ModelError.self) {
            try LinearizedPass([1], target: AttributionTarget([]), model: model)
        }
        #expect(throws: ModelError.self) {
            try LinearizedPass([Int32](repeating: 1, count: 65), target: target, model: model)
        }
        let quantized = try MonetLanguageModel(
            configuration: model.configuration,
            parameters: ParameterSet(
                model.parameters.all.map {
                    $0.name.hasSuffix("o_proj.weight")
                        ? Parameter(name: $0.name, tensor: $0.tensor.converted(to: .int8Rows), role: $0.role)
                        : $0
                }))
        #expect(throws: ModelError.self) { try LinearizedPass(ids, target: target, model: quantized) }
        let pass = try LinearizedPass(ids, target: target, model: model)
        #expect(throws: CancellationError.self) { try AttributionGraph(pass, unitCount: 5) { _ in false } }
    }
}
