import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

struct ForwardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forward",
        abstract: "Run tokens through a model; write logits, hidden states and router probabilities.",
        discussion: """
            EXAMPLES
              echo "[[5, 17, 99], [7, 8, 9]]" > ids.json
              monet forward --model checkpoints/demo --tokens ids.json --out out.safetensors
              monet forward --model checkpoints/demo "The sea" --out out.safetensors

            Tensors are float32: logits [B,T,V]; hidden_states.{l} [B,T,d], where 0 is the embedding \
            and the last follows the final norm; router_probs.{l}.g1 and .g2 [B,T,H,E] for each layer \
            that owns a router; input_ids [B,T].
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Argument(help: "A text to run, instead of --tokens.")
    var text: String?
    @Option(
        help: ArgumentHelp(
            "A JSON file with a list of lists of token ids, all of equal length.", valueName: "path"))
    var tokens: String?
    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("The safetensors file to write.", valueName: "path"))
    var out: String
    @Flag(help: "Write logits only.")
    var logitsOnly = false
    @OptionGroup var masking: MaskOptions
    @OptionGroup var steering: SteeringOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if (text == nil) == (tokens == nil) { throw ValidationError("Give a text or --tokens.") }
    }

    func run() throws {
        try overwriting.check(out)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let backend = try compute.backend()
        let sequences = try readSequences(tokenizer, vocabularySize: model.configuration.vocabularySize)
        var input = ForwardInput(sequences, mask: try masking.load(for: model, common.logger))
        let steering = try steering.load(for: model, tokenizer, on: backend)
        for index in input.sequences.indices { input.sequences[index].steering = steering }
        let layers = (0..<model.configuration.layerCount).map { HookPoint(.residPre, layer: $0) }
        if !logitsOnly { input.hooks.observed = Set(layers) }
        let output = try model.forward(input, on: backend)
        let extents = [sequences.count, sequences[0].count]
        func shaped(_ tensor: Tensor) -> Tensor { tensor.reshaped(extents + tensor.shape.dropFirst()) }
        var tensors: [(name: String, tensor: Tensor)] = [
            ("input_ids", Tensor(sequences.flatMap { $0 }, shape: extents)),
            ("logits", shaped(try model.logits(output.hidden.value, on: backend))),
        ]
        if !logitsOnly {
            let states = layers.compactMap { output.observations[$0]?.value } + [output.hidden.value]
            tensors += states.enumerated().map { ("hidden_states.\($0)", shaped($1)) }
            for routing in output.routings {
                tensors.append(("router_probs.\(routing.layer).g1", shaped(routing.left.value)))
                tensors.append(("router_probs.\(routing.layer).g2", shaped(routing.right.value)))
            }
        }
        try SafetensorsWriter.write(tensors, to: out)
        if !common.quiet {
            StandardError.write("wrote \(tensors.count) tensors to \(out)\n")
        }
    }

    private func readSequences(_ tokenizer: Tokenizer?, vocabularySize: Int) throws -> [[Int32]] {
        if let text {
            guard let tokenizer else {
                throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "a text")
            }
            return [try tokenizer.encode(text, addBegin: tokenizer.addsBegin)]
        }
        let path = tokens ?? ""
        let json = try JSONValue(contentsOfFile: path, readsStreams: true)
        guard let rows = json.arrayValue, !rows.isEmpty else {
            throw CommandError.malformedInput(
                source: path, reason: "expected a list of lists of token ids, found \(json.kind)")
        }
        // A single list is a batch of one.
        let lists =
            rows[0].arrayValue == nil
            ? [rows]
            : try rows.enumerated().map { index, row in
                guard let list = row.arrayValue else {
                    throw CommandError.malformedInput(
                        source: path, reason: "row \(index) is \(row.kind), expected a list")
                }
                return list
            }
        let sequences = try lists.enumerated().map { index, list in
            try list.map { value -> Int32 in
                guard case .integer(let id) = value else {
                    throw CommandError.malformedInput(
                        source: path, reason: "row \(index) holds \(value.serialized()), expected a token id")
                }
                guard id >= 0, id < vocabularySize else {
                    throw TextError.unknownTokenID(id: id, vocabularySize: vocabularySize)
                }
                return Int32(id)
            }
        }
        guard let length = sequences.first?.count, length > 0, sequences.allSatisfy({ $0.count == length })
        else {
            throw CommandError.malformedInput(
                source: path,
                reason: "rows of \(Set(sequences.map(\.count)).sorted()) ids, expected one length above 0")
        }
        return sequences
    }
}
