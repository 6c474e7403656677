// The whole library under one name: `import Monet` brings every module but the server and the command line.

@_exported import MonetCompute
@_exported import MonetEvaluation
@_exported import MonetFoundation
@_exported import MonetGeneration
@_exported import MonetInsight
@_exported import MonetModel
@_exported import MonetText
@_exported import MonetTraining
