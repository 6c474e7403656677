import ArgumentParser
import Foundation
import MonetFoundation
import MonetHub
import MonetModel
import Synchronization

struct DownloadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "download",
        abstract: "Download a checkpoint from the Hugging Face hub.",
        discussion: """
            EXAMPLES
              monet download MonetLLM/monet-vd-850M-100BT-hf
              monet download MonetLLM/monet-vd-1.4B-100BT-chat-hf --revision main
              HF_TOKEN=hf_… monet download ORG/PRIVATE

            The files go to the cache of Hugging Face's tools (HF_HUB_CACHE, HF_HOME), where --model ORG/NAME finds \
            them. An interrupted download continues; every file's hash is checked. HF_ENDPOINT names another hub, and \
            HF_HUB_OFFLINE forbids downloads. The snapshot's folder is printed on standard output.
            """)

    @Argument(help: ArgumentHelp("The model's name.", valueName: "org/name"))
    var name: String
    @Option(help: ArgumentHelp("Branch, tag or commit.", valueName: "name"))
    var revision = "main"
    @Flag(help: "Also download files that this package does not read.")
    var all = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let download = try HubDownload(name, revision: revision, takesAll: all)
        Interruption.install()
        let line = Mutex(ProgressLine(isQuiet: common.quiet))
        do {
            let folder = try download.run { progress in
                line.withLock { $0.show(Self.text(progress)) }
                return !Interruption.isRequested
            }
            line.withLock { $0.clear() }
            try StandardOutput.write(folder + "\n")
        } catch is CancellationError {
            line.withLock { $0.clear() }
            StandardError.write("stopped; the same command continues the download\n")
            throw Interruption.exitCode
        }
    }

    private static func text(_ progress: HubDownload.Progress) -> String {
        let rate = progress.seconds > 0 ? Double(progress.arrived) / progress.seconds : 0
        let left = rate > 0 ? Double(progress.total - progress.done) / rate : 0
        return "\(progress.file.onOneLine) (\(progress.place + 1) of \(progress.files)): "
            + "\(progress.done.byteText) of \(progress.total.byteText)"
            + (rate > 0 ? ", \(Int(rate).byteText)/s, \(Int(left)) s left" : "")
    }
}
