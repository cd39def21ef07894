"""The recipe that made `model_weights/demo/`: from folders of public text to a GPT-2 that Hugging Face can load.

Rooms, in the data's order (a room imports only from rooms above it):

    corpora         which files, from whom, under which licence; how to read them
    clean           whitespace, mojibake, de-tokenising; what counts as prose
    dedupe          exact and near duplicates (MinHash), as WebText was de-duplicated
    split           which documents training never sees
    facts           short factual questions and their answers
    demonstrations  records -> documents that show a task in the wording of `prompts/`
    part            what one source gives to the mixture
    tasks, prose    one function a source: read, clean, de-duplicate, split, demonstrate
    mixture         how much of each source goes in
    vocabulary      text -> tokens; the few rows of the vocabulary that are trained
    packing         documents -> rows of one length, separated by <|endoftext|>
    encoding        documents -> packed rows of token ids
    manifest        counts, sources and licences as JSON
    folders         where the commands leave things for one another
    prepare         the command that runs all of the above: `python -m training.prepare`

    presets         the two sizes of the recipe: one for a CPU, one for a GPU
    model           GPT-2 in plain PyTorch
    schedule        learning rate: warm-up, then a cosine
    batches         step number -> rows, the same on every run
    checkpoint      save and resume
    trainer         one model, its optimizer and its place in the run
    report          what a run did, for the model card
    start           the weights of a finished model, to go on from
    hardware        device, bf16, and freed memory that is kept
    meter           loss, tokens/s and the time left, while it runs
    plot            the loss curve as a PNG
    train           the training loop: `python -m training.train`
    export          a Hugging Face folder: `python -m training.export`
    decode          greedy decoding and scoring with the exported folder
    metrics         BLEU, label accuracy, exact match, perplexity
    evaluate        held-out scores: `python -m training.evaluate`
    card            the model card: `python -m training.card`
"""
