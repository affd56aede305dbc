"""What others would do: four neighbouring papers and the field's usual methods, on the study's models, by its ruler."""
