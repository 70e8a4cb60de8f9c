"""The model of level 16: its texts, its training, and how it does on sources that it has not seen."""
