"""Images in, labelled or not; accuracy and agreement with their intervals out."""
